"""One stream of frames: its camera, its link and its client."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, nan

import numpy as np

from delen.simulate.streams.frames import Frames
from delen.simulate.streams.link import FrameDraws, Way
from policies.client.api import (
    ClientController,
    FrameChoice,
    FrameOption,
    FrameReport,
    StreamView,
)
from policies.client.link import LinkEstimate
from policies.client.stream_state import DropCause, NetworkTimes, Sending, StreamState

PATIENCE = 1.0
"""Seconds after its sending at which a frame without an answer is given up, or at its deadline."""

_KEPT_DEVIATION = 0.9
"""What a frame's payload keeps of the deviation of the one before it."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """``frames`` of a camera at ``fps``, each due ``deadline`` seconds after its capture, at one of
    ``options``, which ascend by payload.

    At most ``in_flight`` are on their way at once (None: those of one deadline and another one).
    ``spread`` is the standard deviation of payloads about their means; each frame is captured up to
    some ``jitter`` seconds late (exponential). The first is captured at ``start``.
    """

    name: str
    options: tuple[FrameOption, ...]
    fps: float
    deadline: float
    frames: int
    in_flight: int | None = None
    spread: float = 0.1
    jitter: float = 0.0
    start: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fps", "deadline"):
            value = getattr(self, name)
            if not 0 < value < inf:
                raise ValueError(f"{name} is {value}; it must be finite and above 0")
        payloads = [option.payload for option in self.options]
        if not payloads or payloads != sorted(payloads):
            raise ValueError("options must be one or more, ascending by payload")

    @property
    def most_in_flight(self) -> int:
        return self.in_flight or ceil(self.deadline * self.fps) + 1

    @property
    def end(self) -> float:
        """When the last frame is over, in seconds."""
        return self.start + self.frames / self.fps + self.deadline + PATIENCE


@dataclass(frozen=True, slots=True)
class Footage:
    """The frames of a stream in one run, the same for every controller: when each was captured
    (ascending), and what chance does to it."""

    captured: Sequence[float]
    draws: Sequence[FrameDraws]


def draw_footage(settings: StreamSettings, seed: int) -> Footage:
    """The frames that ``seed`` makes."""
    rng = np.random.default_rng((seed, 3))
    count = settings.frames
    news = rng.normal(size=count) * (1 - _KEPT_DEVIATION**2) ** 0.5
    deviation, payloads = 0.0, []
    for each in news.tolist():
        deviation = _KEPT_DEVIATION * deviation + each
        payloads.append(max(0.2, 1 + settings.spread * deviation))
    ways = rng.standard_exponential((count, 2)).tolist()
    losses = rng.random((count, 2)).tolist()
    late = settings.jitter * rng.standard_exponential(count)
    captured = np.maximum.accumulate(settings.start + np.arange(count) / settings.fps + late)
    captured += np.arange(count) * 1e-9  # two at one time would be one frame repeated
    draws = [
        FrameDraws(payload, up, back, (first, second))
        for payload, (up, back), (first, second) in zip(payloads, ways, losses, strict=True)
    ]
    return Footage(captured.tolist(), draws)


class _Timed:
    """A controller whose decisions are timed by a real clock."""

    def __init__(self, controller: ClientController) -> None:
        self.name = controller.name
        self.seconds = array("d")
        self._controller = controller

    def choose(self, view: StreamView) -> FrameChoice | None:
        began = time.perf_counter()
        choice = self._controller.choose(view)
        self.seconds.append(time.perf_counter() - began)
        return choice

    def ended(self, report: FrameReport) -> None:
        self._controller.ended(report)


class Stream:
    """The client of one stream, with the rules of the SDK's (``StreamState``), and its log."""

    def __init__(
        self,
        settings: StreamSettings,
        controller: ClientController,
        way: Way,
        footage: Footage,
    ) -> None:
        self.settings = settings
        self.footage = footage
        self._controller = _Timed(controller)
        self._state: StreamState[None, None] = StreamState(
            self._controller,
            deadline=settings.deadline,
            period=1 / settings.fps,
            in_flight=settings.most_in_flight,
        )
        self.begin(settings.options, way, LinkEstimate(way.round_trip))
        self._ways: dict[int, Way] = {}
        self._index = array("b", [-1]) * settings.frames
        self._sent = array("d", [nan]) * settings.frames
        self._answered = array("d", [nan]) * settings.frames
        self._correct = array("d", [0.0]) * settings.frames
        self._exit = array("b", [-1]) * settings.frames

    def begin(self, options: Sequence[FrameOption], way: Way, network: NetworkTimes) -> None:
        """From now on frames are sent as ``options`` and on ``way``, of which ``network`` is
        known."""
        self._options, self.way = options, way
        self._state.begin(options, network, way.round_trip)

    def capture(self, frame: int) -> Sending[None] | None:
        """``frame`` is there; what is sent of it or after it."""
        self._state.put(None, self.footage.captured[frame])
        return self.send(self.footage.captured[frame])

    def send(self, now: float) -> Sending[None] | None:
        return self._state.send(now)

    def hand_over(self, frame: int, index: int, now: float) -> tuple[float, float]:
        """An encoded frame is handed to its way: when it reaches the daemon (inf if it does not),
        and when it is given up."""
        draws = self.footage.draws[frame]
        payload = self._options[index].payload * draws.payload
        self._state.encoded(frame, now, payload)
        due = self.footage.captured[frame] + self.settings.deadline
        given_up = max(now + PATIENCE, due)
        self._ways[frame] = self.way
        self._index[frame], self._sent[frame] = index, now
        return self.way.send(now, payload, given_up, draws), given_up

    def back(self, frame: int) -> float:
        """Seconds that the answer to ``frame`` takes back; inf if nobody waits for it any more."""
        way = self._ways.get(frame)
        return inf if way is None else way.back(self.footage.draws[frame])

    def note(self, frame: int, exit: int, correct: float) -> None:
        """What the daemon will answer: from ``exit``, right with probability ``correct``."""
        self._exit[frame], self._correct[frame] = exit, correct

    def answered(self, frame: int, now: float, latency: float) -> None:
        """The answer is there; ``latency`` is the daemon's."""
        if self._ways.pop(frame, None) is not None:
            self._answered[frame] = now
            self._state.answered(frame, now, latency, None)

    def failed(self, frame: int, now: float, cause: DropCause) -> None:
        """No answer comes any more."""
        if self._ways.pop(frame, None) is not None:
            self._state.failed(frame, now, cause)

    def let_go(self, now: float) -> float | None:
        """Give the app what it can have now; when the next one is due that waits for another."""
        while self._state.take(now) is not None:
            pass
        return self._state.due()

    def frames(self) -> Frames:
        """What became of each frame."""
        return Frames(
            captured=np.array(self.footage.captured),
            index=np.asarray(self._index),
            sent=np.asarray(self._sent),
            answered=np.asarray(self._answered),
            exit=np.asarray(self._exit),
            correct=np.asarray(self._correct),
            dropped={cause: count for cause, count in self._state.dropped.items() if count},
            decision_seconds=np.asarray(self._controller.seconds),
        )
