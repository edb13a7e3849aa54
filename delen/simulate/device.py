"""The true device, which the scheduler does not know: noise and slow times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from delen.profile.profile import LEVELS, Profile, Quantiles

GRID = 1000
"""How many quantiles durations are drawn from."""

_DRAWN = 65536


@dataclass(frozen=True, slots=True)
class SlowSpan:
    """Runs that begin from ``start`` to ``end`` (s) take ``factor`` (at least 1) times as long."""

    start: float
    end: float
    factor: float

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end < inf or not 1 <= self.factor < inf:
            raise ValueError(
                f"{self.start}:{self.end}:{self.factor} must start at 0 s or later, end after "
                "that, be slower by a factor of at least 1, and all of it be finite"
            )


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """``lanes`` batches run at once, each ``interference[k]`` times slower while k others run; the
    last factor also holds for more. ``slow`` are spans in which everything is slower; they must not
    overlap. ``network`` seconds pass from a client to the device, and as many back. ``front`` are
    the seconds that the host takes to read a request, and to send its answer, beside what profiles
    say, on an idle host; ``crowded`` those on a busy one (None: the same). ``readers`` threads
    read. Without ``noise`` everything takes its median."""

    lanes: int = 1
    interference: tuple[float, ...] = (1.0,)
    slow: tuple[SlowSpan, ...] = ()
    network: float = 0.0
    front: tuple[float, float] = (0.0, 0.0)
    crowded: tuple[float, float] | None = None
    readers: int = 1
    noise: bool = True

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise ValueError(f"lanes is {self.lanes}; a device has at least one")
        if not self.interference or any(not factor >= 1 for factor in self.interference):
            raise ValueError(
                f"interference (corun) needs factors of at least 1, not {self.interference}"
            )
        if self.readers < 1:
            raise ValueError(f"readers is {self.readers}; it must be at least 1")
        if not min(self.network, *self.front, *(self.crowded or ())) >= 0:
            raise ValueError("network and front must be at least 0 s")


def durations(quantiles: Quantiles) -> NDArray[np.float64]:
    """GRID equally likely durations with these ``quantiles``, ascending, in seconds.

    Linear between the known quantiles and, at the slope of the last two, beyond them. Profiles say
    nothing below the median, where it is the mirror image in the logarithm.
    """
    levels = (np.arange(GRID) + 0.5) / GRID
    known = [quantiles.at(level) for level in LEVELS]
    slope = (known[-1] - known[-2]) / (LEVELS[-1] - LEVELS[-2])
    ends = known[-1] + slope * (1 - LEVELS[-1])
    upper = np.interp(levels[GRID // 2 :], [*LEVELS, 1.0], [*known, ends])
    if quantiles.p50 == 0:
        return np.concatenate((np.zeros(GRID // 2), upper))
    return np.concatenate((quantiles.p50**2 / upper[::-1], upper))


class Noise:
    """Draws of durations, the same in every run of one ``seed``."""

    def __init__(self, seed: int, noise: bool) -> None:
        self._rng = np.random.default_rng(seed)
        self._noise = noise
        self._drawn: list[int] = []

    def draw(self, table: Sequence[float]) -> float:
        """One of the GRID values of ``table``, or its median."""
        if not self._noise:
            return table[GRID // 2]
        if not self._drawn:
            self._drawn = self._rng.integers(GRID, size=_DRAWN).tolist()
        return table[self._drawn.pop()]


class Device:
    """How long each batch and each answer truly takes."""

    def __init__(
        self, profiles: Mapping[str, Profile], settings: DeviceSettings, seed: int
    ) -> None:
        self._profiles = profiles
        self._settings = settings
        self._noise = Noise(seed, settings.noise)
        self._slow = sorted(settings.slow, key=lambda span: span.start)
        self._tables: dict[tuple[str, int, int], list[float]] = {}
        self._answers = {
            name: durations(profile.answer).tolist() for name, profile in profiles.items()
        }

    def takes(self, now: float, model: str, segment: int, batch: int) -> float:
        """Seconds of ``segment`` on a ``batch`` that begins ``now``, if nothing runs beside it."""
        key = (model, segment, batch)
        table = self._tables.get(key)
        if table is None:
            cost = self._profiles[model].cost(segment, batch)
            table = self._tables[key] = durations(cost.latency).tolist()
        drawn = self._noise.draw(table)
        return drawn * self.slowness(now) if self._slow else drawn

    def answering(self, model: str) -> float:
        """Seconds from a segment's end to the answer."""
        return self._noise.draw(self._answers[model])

    def slowness(self, now: float) -> float:
        """How many times slower everything is; ``now`` may not fall."""
        slow = self._slow
        while slow and slow[0].end <= now:
            slow.pop(0)
        return slow[0].factor if slow and slow[0].start <= now else 1.0
