"""The rules of a stream: which frame waits, which is sent or dropped, in which order answers leave.

One frame waits at most: a newer one takes its place. A frame whose deadline is over is not sent. An
answer waits for those of earlier frames, but only until their deadline, so that nothing that came
in time leaves late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, Protocol, TypeVar, get_args

from delen.errors import DelenError
from policies.client.api import (
    ClientController,
    FrameChoice,
    FrameOption,
    FrameReport,
    SentFrame,
    StreamView,
)

F = TypeVar("F")
A = TypeVar("A")

DropCause = Literal[
    "repeated",
    "replaced",
    "stale",
    "controller",
    "invalid",
    "refused",
    "unanswered",
    "overtaken",
]
"""Why a frame has no answer. Not sent: it is not newer than the last one (``repeated``), a newer
one took its place (``replaced``), its deadline was over (``stale``), the controller held it back
(``controller``). Sent: its content is wrong (``invalid``), the daemon refused it (``refused``), no
answer came (``unanswered``), or it came after a later frame's had left (``overtaken``)."""


class NetworkTimes(Protocol):
    """What is known of the network between client and daemon."""

    def learn(self, index: int, payload: float, network: float) -> None:
        """A frame of option ``index`` and ``payload`` bytes had this network time."""

    def predict(self, payloads: Sequence[float]) -> Sequence[float] | None:
        """The network time of each payload; None where nothing is known."""


@dataclass(frozen=True, slots=True)
class Sending(Generic[F]):
    """A frame to send now as ``option``, which is number ``index`` of the stream's.

    ``upload`` are the seconds that its bytes are predicted to take beyond the round trip.
    """

    frame: int
    captured: float
    content: F
    index: int
    option: FrameOption
    max_latency: float | None
    upload: float = 0.0


@dataclass(frozen=True, slots=True)
class Answered(Generic[A]):
    """A frame's answer. ``latency`` is from capture to answer, in seconds."""

    frame: int
    captured: float
    latency: float
    option: FrameOption
    late: bool
    answer: A


class StreamState(Generic[F, A]):
    """A stream between its source and its sender, on a monotonic clock that callers read.

    Every frame that was put ends once: as an answer, or under a cause in ``dropped``. Nothing is
    sent before ``begin``. Calls must not overlap.
    """

    def __init__(
        self,
        controller: ClientController,
        *,
        deadline: float,
        period: float,
        in_flight: int,
    ) -> None:
        self._controller = controller
        self._options: Sequence[FrameOption] = ()
        self._link: NetworkTimes | None = None
        self._round_trip = 0.0
        self._deadline = deadline
        self._period = period
        self._most = in_flight
        self._count = 0
        self._captured = float("-inf")
        self._waiting: tuple[int, float, F] | None = None
        self._in_flight: dict[int, tuple[Sending[F], SentFrame]] = {}
        self._held: dict[int, Answered[A]] = {}
        self._left = -1
        self._has_ended = False
        self._dropped: dict[DropCause, int] = dict.fromkeys(get_args(DropCause), 0)

    @property
    def frames(self) -> int:
        """How many frames were put."""
        return self._count

    @property
    def pending(self) -> int:
        """How many frames wait or are in flight."""
        return (self._waiting is not None) + len(self._in_flight)

    @property
    def dropped(self) -> Mapping[DropCause, int]:
        """How many frames have no answer, by cause."""
        return dict(self._dropped)

    @property
    def has_ended(self) -> bool:
        """Whether the source gives no more frames."""
        return self._has_ended

    @property
    def is_drained(self) -> bool:
        """Whether the source has ended and nothing waits to be sent."""
        return self._has_ended and self._waiting is None

    @property
    def is_finished(self) -> bool:
        """Whether no answer will leave any more."""
        return self.is_drained and not self._in_flight and not self._held

    @property
    def has_begun(self) -> bool:
        """Whether it is known what can be sent."""
        return bool(self._options)

    def begin(
        self,
        options: Sequence[FrameOption],
        link: NetworkTimes | None = None,
        round_trip: float = 0.0,
    ) -> None:
        """What can be sent, ascending by payload, and what is known of the network."""
        self._options, self._link, self._round_trip = options, link, round_trip

    def put(self, content: F, now: float, captured: float | None = None) -> None:
        """A new frame. ``captured`` is now, unless the source says when it was."""
        number = self._count
        self._count += 1
        if captured is not None and captured <= self._captured:
            self._dropped["repeated"] += 1
            return
        self._captured = now if captured is None else min(captured, now)
        if self._waiting is not None:
            self._dropped["replaced"] += 1
        self._waiting = number, self._captured, content

    def end(self) -> None:
        """The source gives no more frames."""
        self._has_ended = True

    def send(self, now: float) -> Sending[F] | None:
        """The frame to send now; None while none waits or enough are in flight."""
        if self._waiting is None or not self._options or len(self._in_flight) >= self._most:
            return None
        (number, captured, content), self._waiting = self._waiting, None
        if captured + self._deadline <= now:
            self._dropped["stale"] += 1
            return None
        payloads = [option.payload for option in self._options]
        network = None if self._link is None else self._link.predict(payloads)
        choice = self._controller.choose(
            StreamView(
                frame=number,
                now=now,
                captured=captured,
                deadline=self._deadline,
                period=self._period,
                options=self._options,
                network=network,
                in_flight=tuple(sent for _, sent in self._in_flight.values()),
                round_trip=self._round_trip,
            )
        )
        if choice is None:
            self._dropped["controller"] += 1
            return None
        if not isinstance(choice, FrameChoice) or choice.index not in range(len(self._options)):
            raise DelenError(
                f"the controller {getattr(self._controller, 'name', self._controller)!r} chose "
                f"{choice!r}; it must be None or a FrameChoice of one of the {len(self._options)} "
                "options"
            )
        option = self._options[choice.index]
        upload = 0.0 if network is None else max(0.0, network[choice.index] - self._round_trip)
        sending = Sending(
            number, captured, content, choice.index, option, choice.max_latency, upload
        )
        self._in_flight[number] = sending, SentFrame(number, choice.index, option.payload, now)
        return sending

    def encoded(
        self, frame: int, now: float, payload: float, size: tuple[int, int] | None = None
    ) -> None:
        """``frame`` is handed to the network now, as ``payload`` bytes, and at ``size`` where it
        does not fill the one that was chosen."""
        sending, sent = self._in_flight[frame]
        index = sending.index
        if size is not None:
            index = [option.size for option in self._options].index(size)
        self._in_flight[frame] = (
            replace(sending, index=index, option=self._options[index]),
            replace(sent, index=index, payload=payload, sent=now),
        )

    def answered(self, frame: int, now: float, latency: float, answer: A) -> None:
        """``answer`` came now; the daemon's own part of the time was ``latency`` seconds."""
        sending, sent = self._in_flight.pop(frame)
        network = max(0.0, now - sent.sent - latency)
        if self._link is not None:
            self._link.learn(sending.index, sent.payload, network)
        self._report(sending, sent, now, latency, network)
        if frame < self._left:
            self._dropped["overtaken"] += 1
            return
        taken = now - sending.captured
        self._held[frame] = Answered(
            frame, sending.captured, taken, sending.option, taken > self._deadline, answer
        )

    def failed(self, frame: int, now: float, cause: DropCause) -> None:
        """No answer will come; that is known since now."""
        sending, sent = self._in_flight.pop(frame)
        self._dropped[cause] += 1
        self._report(sending, sent, now, None, None)

    def take(self, now: float) -> Answered[A] | None:
        """The next answer in order of capture, if it can leave now."""
        if not self._held or self._blocked_until() > now:
            return None
        self._left = min(self._held)
        return self._held.pop(self._left)

    def due(self) -> float | None:
        """When an answer that is held can leave at the latest; None if none is held."""
        return self._blocked_until() if self._held else None

    def _blocked_until(self) -> float:
        first = min(self._held)
        earlier = [sent.captured for sent, _ in self._in_flight.values() if sent.frame < first]
        return max(earlier) + self._deadline if earlier else float("-inf")

    def _report(
        self,
        sending: Sending[F],
        sent: SentFrame,
        now: float,
        latency: float | None,
        network: float | None,
    ) -> None:
        self._controller.ended(
            FrameReport(
                frame=sending.frame,
                index=sending.index,
                payload=sent.payload,
                captured=sending.captured,
                sent=sent.sent,
                ended=now,
                answered=None if latency is None else now,
                latency=latency,
                network=network,
            )
        )
