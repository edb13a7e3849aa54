"""What else ran while something was measured, and measuring that gives way to requests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delen.engine.backends.base import Features, Network, Placement, SegmentRun
from delen.profile.profile import Disturbance

PROCESSOR_TIMES = Path("/proc/stat")

_MOST_OTHERS = 0.1
"""Share of all cores that may go to other work before what was measured is taken to be wrong."""
_LEAST_SECONDS = 0.2
"""The kernel counts processor time in steps of 10 ms: nothing is known of a shorter time."""
_BUSY_COLUMNS = (1, 2, 3, 6, 7, 8)
"""user, nice, system, irq, softirq and steal, after the core's name."""


class GaveWay(Exception):
    """A measurement ended early, because something else needs the device."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """In ``seconds`` the ``cores`` were busy for ``busy`` processor seconds; the measurement itself
    took ``own``."""

    seconds: float
    cores: int
    busy: float
    own: float

    @property
    def others(self) -> float:
        """The share of all cores that other work had."""
        return max(0.0, self.busy - self.own) / (self.seconds * self.cores)


def is_busy(evidence: Evidence) -> bool:
    """Whether other work had too much of the processor for a measurement to be right."""
    return evidence.seconds >= _LEAST_SECONDS and evidence.others > _MOST_OTHERS


class ProcessorWatch:
    """Watches the processor from when it is made."""

    def __init__(self, file: Path = PROCESSOR_TIMES) -> None:
        self._file = file
        self._began = time.monotonic()
        self._busy = _busy_seconds(file)
        self._process = time.process_time()
        self._thread = time.thread_time()

    def disturbance(self, threads: int | None = None) -> Disturbance | None:
        """What disturbed what this process did until now; None where the kernel does not say.

        With ``threads``, the measurement ran on the calling thread and a pool of so many in all:
        then what else this process did disturbed it, too.
        """
        busy = _busy_seconds(self._file)
        if busy is None or self._busy is None:
            return None
        own = time.process_time() - self._process
        if threads is not None:
            own = min(own, threads * (time.thread_time() - self._thread))
        seconds = time.monotonic() - self._began
        evidence = Evidence(seconds, len(os.sched_getaffinity(0)), busy - self._busy, own)
        return Disturbance(is_busy(evidence), round(evidence.others, 3))


def is_calm(seconds: float = 0.3) -> bool:
    """Whether other work leaves the processor alone now; takes so long to say."""
    watch = ProcessorWatch()
    time.sleep(seconds)
    disturbance = watch.disturbance()
    return disturbance is None or not disturbance.busy


def worse(one: Disturbance | None, other: Disturbance | None) -> Disturbance | None:
    """Of two parts of a measurement, what disturbed it more."""
    known = [part for part in (one, other) if part is not None]
    return max(known, key=lambda part: (part.busy, part.others), default=None)


def _busy_seconds(file: Path) -> float | None:
    """What the cores that this process may use have worked since the machine started."""
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    try:
        rows = [line.split() for line in file.read_text().splitlines()]
        ticks = [int(row[at]) for row in rows if row and row[0] in ours for at in _BUSY_COLUMNS]
    except (OSError, ValueError, IndexError):
        return None
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


class SpareLane:
    """``network`` on ``lane`` and those after it, which serve nobody. Nothing more runs there once
    ``gives_way``: GaveWay is raised instead."""

    def __init__(
        self, network: Network, lane: int, gives_way: Callable[[], bool] = lambda: False
    ) -> None:
        self._network = network
        self._lane = lane
        self._gives_way = gives_way

    @property
    def placement(self) -> Placement:
        return self._network.placement

    @property
    def smaller(self) -> Sequence[Network]:
        return [SpareLane(each, self._lane, self._gives_way) for each in self._network.smaller]

    def load(self, segment: int) -> None:
        self._network.load(segment)

    def drop(self, segment: int) -> None:
        self._network.drop(segment)

    def blank(self, segment: int) -> Features:
        return self._network.blank(segment)

    def take_in(self, features: NDArray[np.float32]) -> Features:
        return self._network.take_in(features)

    def take_out(self, features: Features) -> NDArray[np.float32]:
        return self._network.take_out(features)

    def run(self, segment: int, samples: Sequence[Features], lane: int = 0) -> SegmentRun:
        if self._gives_way():
            raise GaveWay
        return self._network.run(segment, samples, self._lane + lane)

    def free_lane(self, lane: int) -> None:
        self._network.free_lane(self._lane + lane)
