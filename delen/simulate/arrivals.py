"""When requests arrive: generators of times, the same in every run of one seed."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


class Arrivals(Protocol):
    """``rate`` is the mean number of requests a second."""

    @property
    def rate(self) -> float: ...

    def times(self, duration: float, rng: np.random.Generator) -> Times:
        """Seconds from 0 to below ``duration``, ascending: float64 ``[requests]``."""
        ...


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent requests."""

    rate: float

    def __post_init__(self) -> None:
        _check_above_0(rate=self.rate)

    def times(self, duration: float, rng: np.random.Generator) -> Times:
        return _poisson(0.0, duration, self.rate, rng)


@dataclass(frozen=True, slots=True)
class Bursts:
    """A Markov-modulated Poisson process of two states, calm and burst, in its stationary course.

    Bursts have ``peak`` times the mean rate, fill ``share`` of the time and last ``dwell`` seconds
    on average; in between the rate is what leaves ``rate`` as the mean. ValueError if the bursts
    alone would have more than all requests.
    """

    rate: float
    peak: float = 3.0
    share: float = 0.2
    dwell: float = 1.0

    def __post_init__(self) -> None:
        _check_above_0(rate=self.rate, dwell=self.dwell)
        if not 0 < self.share < 1:
            raise ValueError(f"share is {self.share}; it must be between 0 and 1")
        if not 1 <= self.peak <= 1 / self.share:
            raise ValueError(
                f"peak is {self.peak}; bursts that fill {self.share:g} of the time can have 1 to "
                f"{1 / self.share:g} times the mean rate"
            )

    @property
    def calm_rate(self) -> float:
        return self.rate * (1 - self.share * self.peak) / (1 - self.share)

    def times(self, duration: float, rng: np.random.Generator) -> Times:
        calm_dwell = self.dwell * (1 - self.share) / self.share
        is_burst = rng.random() < self.share
        start, pieces = 0.0, [np.empty(0)]
        while start < duration:
            end = min(duration, start + rng.exponential(self.dwell if is_burst else calm_dwell))
            rate = self.peak * self.rate if is_burst else self.calm_rate
            pieces.append(_poisson(start, end, rate, rng))
            start, is_burst = end, not is_burst
        return np.concatenate(pieces)


@dataclass(frozen=True, slots=True)
class Camera:
    """Frames at ``fps`` a second, the first after ``phase`` seconds (None: a random share of a
    frame), each delivered up to ``jitter`` seconds late, evenly distributed."""

    fps: float
    phase: float | None = None
    jitter: float = 0.0

    def __post_init__(self) -> None:
        _check_above_0(fps=self.fps)
        for name, value in (("phase", self.phase), ("jitter", self.jitter)):
            if value is not None and not 0 <= value < inf:
                raise ValueError(f"{name} is {value}; it must be finite and at least 0 s")

    @property
    def rate(self) -> float:
        return self.fps

    def times(self, duration: float, rng: np.random.Generator) -> Times:
        phase = rng.random() / self.fps if self.phase is None else self.phase
        frames = max(0, int(np.ceil((duration - phase) * self.fps)))
        times = phase + np.arange(frames) / self.fps + self.jitter * rng.random(frames)
        return np.sort(times[times < duration])


@dataclass(frozen=True, slots=True)
class Recorded:
    """Poisson requests at a rate that follows a recording: ``record[i]`` from ``i * step`` seconds
    on, repeated after its end, scaled to the mean ``rate``."""

    rate: float
    record: tuple[float, ...]
    step: float = 1.0

    def __post_init__(self) -> None:
        _check_above_0(rate=self.rate, step=self.step)
        if not all(0 <= value < inf for value in self.record) or not sum(self.record) > 0:
            raise ValueError("record must hold finite rates of at least 0, and one above 0")

    def times(self, duration: float, rng: np.random.Generator) -> Times:
        starts = np.arange(0.0, duration, self.step)
        ends = np.minimum(starts + self.step, duration)
        scale = self.rate / float(np.mean(self.record))
        rates = scale * np.resize(np.asarray(self.record, np.float64), len(starts))
        counts = rng.poisson(rates * (ends - starts))
        lengths = np.repeat(ends - starts, counts)
        return np.sort(np.repeat(starts, counts) + lengths * rng.random(int(counts.sum())))


@dataclass(frozen=True, slots=True)
class Window:
    """Requests of ``inner`` from ``start`` to ``end`` (s), at its rate meanwhile."""

    inner: Arrivals
    start: float
    end: float

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(
                f"the window is {self.start} to {self.end} s; it must start at 0 s or later, and "
                "end after that"
            )

    @property
    def rate(self) -> float:
        return self.inner.rate

    def times(self, duration: float, rng: np.random.Generator) -> Times:
        end = min(self.end, duration)
        if end <= self.start:
            return np.empty(0)
        times = self.start + self.inner.times(end - self.start, rng)
        return times[times < end]


def _poisson(start: float, end: float, rate: float, rng: np.random.Generator) -> Times:
    count = rng.poisson(rate * (end - start))
    return np.sort(start + (end - start) * rng.random(count))


def _check_above_0(**values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and isfinite(value)):
            raise ValueError(f"{name} is {value}; it must be finite and above 0")
