"""A link from a client to a daemon: bytes through a changing bandwidth, delays and losses."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from math import inf
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from delen.simulate.streams.bandwidth import Bandwidth

Floats = NDArray[np.float64]

PACKET = 1448
"""Bytes of a frame in one packet."""

OVERHEAD = 400
"""Bytes of a request beside the frame: headers of HTTP."""

TIMEOUT = 0.2
"""Least seconds after which TCP sends again what nothing told it was lost (RFC 6298 says 1; Linux
has 0.2)."""

_STEP = 0.01
"""Seconds for which the bandwidth of a course is constant."""

_TAIL = 3
"""So many packets must follow a lost one for its sender to hear of it (fast retransmit)."""


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """A link with ``bandwidth`` to the daemon; answers are small, and only take the way back.

    ``delay`` seconds pass each way, and exponential ``jitter`` of that mean beside it. ``loss`` is
    the share of packets that is lost; losses come in bursts of ``burst`` seconds on average, in
    which half of all packets are lost. A lost packet is sent again: its frame waits another round
    trip, or ``TIMEOUT`` where it was among the last. ``variation`` is the standard deviation of the
    logarithm of the bandwidth about the trace, correlated over 0.2 s; ``fades`` a second cut it to
    a tenth for 0.1 s on average.
    """

    bandwidth: Bandwidth
    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    burst: float = 0.05
    variation: float = 0.0
    fades: float = 0.0

    def __post_init__(self) -> None:
        for name in ("delay", "jitter", "burst", "variation", "fades"):
            value = getattr(self, name)
            if not 0 <= value < inf:
                raise ValueError(f"{name} of a link is {value}; it must be finite and at least 0")
        if not 0 <= self.loss <= _LOST_IN_BURST:
            raise ValueError(f"loss of a link is {self.loss}; it must be from 0 to 0.5")
        if self.loss and not self.burst:
            raise ValueError("burst of a link is 0; losses need bursts that last")


_LOST_IN_BURST = 0.5
_CORRELATED = 0.2
_FADED = 0.1
_FADE_SECONDS = 0.1


class Course:
    """How many bytes a link of ``settings`` carries by which time, in one run of ``seconds``."""

    def __init__(self, settings: LinkSettings, seconds: float, rng: np.random.Generator) -> None:
        steps = max(1, math.ceil(seconds / _STEP))
        rates = settings.bandwidth.at(np.arange(0.5, steps, dtype=np.float64) * _STEP)
        if settings.variation:
            keep = math.exp(-_STEP / _CORRELATED)
            drawn = rng.normal(size=steps) * math.sqrt(1 - keep**2)
            level, levels = rng.normal(), []
            for each in drawn.tolist():
                level = keep * level + each
                levels.append(level)
            spread = settings.variation
            rates = rates * np.exp(spread * np.array(levels) - spread**2 / 2)
        for start in np.flatnonzero(rng.random(steps) < settings.fades * _STEP):
            length = 1 + int(rng.exponential(_FADE_SECONDS) / _STEP)
            rates[start : start + length] *= _FADED
        self._sums: Floats = np.concatenate(([0.0], np.cumsum(rates * _STEP)))
        self._carried: list[float] = self._sums.tolist()

    def finish(self, start: float, size: float) -> float:
        """When ``size`` bytes are through that begin at ``start``; inf if never in this run."""
        carried, at = self._carried, start / _STEP
        step = int(at)
        if step >= len(carried) - 1:
            return inf
        target = carried[step] + (at - step) * (carried[step + 1] - carried[step]) + size
        end = bisect_left(carried, target, step)
        if end >= len(carried):
            return inf
        if end == 0:
            return start
        before = carried[end - 1]
        share = (target - before) / (carried[end] - before)
        return max(start, (end - 1 + share) * _STEP)

    def finish_all(self, starts: Floats, sizes: Floats) -> Floats:
        """As ``finish``, for arrays that go with each other."""
        grid = np.arange(len(self._sums)) * _STEP
        targets = np.interp(starts, grid, self._sums) + sizes
        ends = np.searchsorted(self._sums, targets)
        inside = (ends < len(self._sums)) & (starts < grid[-1])
        ends = np.clip(ends, 1, len(self._sums) - 1)
        before = self._sums[ends - 1]
        width = np.maximum(self._sums[ends] - before, 1e-300)
        finished = (ends - 1 + (targets - before) / width) * _STEP
        return np.where(inside, np.maximum(starts, finished), inf)


class _Losses:
    """Spans in which packets are lost, and what frames in them wait."""

    def __init__(self, settings: LinkSettings, seconds: float, rng: np.random.Generator) -> None:
        share = settings.loss / _LOST_IN_BURST
        self._spans: list[tuple[float, float]] = []
        if share:
            now = 0.0
            calm = settings.burst * (1 - share) / share
            while now < seconds:
                now += rng.exponential(calm)
                end = now + rng.exponential(settings.burst)
                self._spans.append((now, end))
                now = end
        self._ends = [end for _, end in self._spans]
        self._begins = [begin for begin, _ in self._spans]

    def touches(self, starts: Floats, ends: Floats) -> NDArray[np.bool_]:
        """Whether packets are lost between ``starts`` and ``ends``."""
        if not self._spans:
            return np.zeros(starts.shape, bool)
        index = np.searchsorted(self._ends, starts)
        begins = np.append(self._begins, inf)[index]
        touched: NDArray[np.bool_] = begins <= ends
        return touched

    def wait(
        self, start: float, end: float, packets: int, round_trip: float, draws: tuple[float, float]
    ) -> float:
        """How many seconds longer ``packets`` sent from ``start`` to ``end`` take."""
        index = bisect_left(self._ends, start)
        if index == len(self._spans) or self._spans[index][0] > end:
            return 0.0
        began, stopped = self._spans[index]
        inside = min(end, stopped) - max(start, began)
        share = inside / (end - start) if end > start else 1.0
        within = max(1, round(share * packets))
        if draws[0] < (1 - _LOST_IN_BURST) ** within:
            return 0.0
        in_tail = stopped >= end and draws[1] >= (1 - _LOST_IN_BURST) ** min(_TAIL, within)
        return max(TIMEOUT, round_trip) if in_tail else round_trip


@dataclass(frozen=True, slots=True)
class FrameDraws:
    """What chance does to one frame on its way, whatever is chosen for it.

    ``payload`` is how many times the mean its bytes are, ``up`` and ``back`` are its jitter each
    way as multiples of the link's, ``loss`` two numbers from 0 to 1 that decide about its packets.
    """

    payload: float
    up: float
    back: float
    loss: tuple[float, float]


class Way(Protocol):
    """What a stream's frames take to their daemon, and its answers back."""

    @property
    def round_trip(self) -> float:
        """What a message of no size takes there and back, in seconds."""

    def send(self, sent: float, size: float, given_up: float, draws: FrameDraws) -> float:
        """When ``size`` bytes handed over at ``sent`` reach the daemon; inf if they do not."""

    def back(self, draws: FrameDraws) -> float:
        """Seconds that the answer takes back; inf if it does not arrive."""


class Link:
    """One link in one run. Frames of all its streams pass it one after the other."""

    def __init__(self, settings: LinkSettings, seconds: float, seed: int) -> None:
        rng = np.random.default_rng((seed, 1))
        self.settings = settings
        self.course = Course(settings, seconds, rng)
        self._losses = _Losses(settings, seconds, rng)
        self.free = 0.0
        """When everything that was handed to it is through."""

    @property
    def round_trip(self) -> float:
        return 2 * self.settings.delay

    def send(self, sent: float, size: float, given_up: float, draws: FrameDraws) -> float:
        """When ``size`` bytes handed over at ``sent`` reach the daemon; inf if they do not.

        What is not through when the client gives it up (``given_up``) is taken out.
        """
        start = max(sent, self.free)
        if start >= given_up:
            return inf
        end, arrived = self.pass_through(start, size, draws)
        self.free = min(end, given_up)
        return arrived if end < given_up else inf

    def pass_through(self, start: float, size: float, draws: FrameDraws) -> tuple[float, float]:
        """When ``size`` bytes are through that begin at ``start``, and when they are all there."""
        end = self.course.finish(start, size + OVERHEAD)
        settings = self.settings
        wait = self._losses.wait(start, end, math.ceil(size / PACKET), self.round_trip, draws.loss)
        return end, end + wait + settings.delay + settings.jitter * draws.up

    def pass_through_all(
        self, starts: Floats, sizes: Floats, draws: FrameDraws
    ) -> tuple[Floats, Floats]:
        """As ``pass_through``, for arrays that go with each other."""
        ends = self.course.finish_all(starts, sizes + OVERHEAD)
        settings = self.settings
        arrived = ends + settings.delay + settings.jitter * draws.up
        starts, sizes = np.broadcast_arrays(starts, sizes)
        for at in zip(*np.nonzero(self._losses.touches(starts, ends)), strict=True):
            packets = math.ceil(sizes[at] / PACKET)
            wait = self._losses.wait(starts[at], ends[at], packets, self.round_trip, draws.loss)
            arrived[at] += wait
        return ends, arrived

    def back(self, draws: FrameDraws) -> float:
        """Seconds that the answer takes back."""
        return self.settings.delay + self.settings.jitter * draws.back
