"""The least that an answer costs: device time, elapsed time and energy on an idle device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from delen.bundle.calibration import Calibration
from delen.profile.cost_model import CostModel
from delen.profile.profile import Quantiles
from delen.simulate.trace import Trace

_SLACK = 1e-9
"""The share by which a window may be too short and still counts as long enough: it is rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class LeastCosts:
    """The least that the segments of one network cost on one device.

    ``seconds`` and ``least``: float64 ``[segments, batch sizes]``, the mean duration (with noise
    its ``effective_seconds``) and the shortest one of a whole batch of 1, 2, ... samples.
    ``energy``: least joules of one sample up to each exit; no cap is held against None, which is
    unknown. ``answer``: least seconds from a segment's end to the answer. ``network``: seconds of
    the way to the device, and of the way back. ``longest``: seconds of the longest run.
    """

    seconds: NDArray[np.float64]
    least: NDArray[np.float64]
    energy: tuple[float | None, ...]
    answer: float = 0.0
    longest: float = 0.0
    network: float = 0.0

    def __post_init__(self) -> None:
        if self.seconds.ndim != 2 or not self.seconds.size or not (self.seconds > 0).all():
            raise ValueError(
                f"seconds {self.seconds.shape} must be [segments, batch sizes], all above 0"
            )
        if self.least.shape != self.seconds.shape or not (self.least <= self.seconds).all():
            raise ValueError(f"least {self.least.shape} must be of seconds' shape, and no more")
        if not (self.least > 0).all():
            raise ValueError("the shortest durations must be above 0 s")
        if len(self.energy) != len(self.seconds):
            raise ValueError(f"energy is of {len(self.energy)} exits, not {len(self.seconds)}")
        for name, value in (("answer", self.answer), ("network", self.network)):
            if not 0 <= value < np.inf:
                raise ValueError(f"{name} is {value}; it must be finite and at least 0 s")

    @classmethod
    def of(
        cls,
        costs: CostModel,
        max_batch: int | None = None,
        durations: Callable[[Quantiles], NDArray[np.float64]] | None = None,
        overhead: float = 0.0,
        network: float = 0.0,
    ) -> LeastCosts:
        """From the profile behind ``costs``, with the least energy over its batch sizes.

        ``durations`` makes all equally likely durations (s) of quantiles; without it everything
        takes its median. ``overhead`` seconds of the device are added to each batch.
        """
        profile, draw = costs.profile, durations or _median
        largest = min(max(sizes) for sizes in profile.segments)
        sizes = range(1, min(largest, max_batch or largest) + 1)
        drawn = [
            [draw(profile.cost(segment, size).latency) + overhead for size in sizes]
            for segment in range(costs.segments)
        ]
        return cls(
            np.array([[effective_seconds(cell) for cell in row] for row in drawn]),
            np.array([[cell.min() for cell in row] for row in drawn]),
            _least_energies(costs, sizes),
            float(draw(profile.answer).min()),
            max(float(cell.max()) for row in drawn for cell in row),
            network,
        )

    @property
    def beside(self) -> float:
        """Least seconds from arrival to answer outside the segments."""
        return self.answer + 2 * self.network

    def elapsed(self, exit: int) -> float:
        """Least seconds from arrival to the answer of ``exit``."""
        return float(self.least.min(axis=1)[: exit + 1].sum()) + self.beside

    def device_seconds(self, exit: int, window: float = np.inf) -> float:
        """Least device seconds of one sample up to ``exit``, its share of each of its batches.

        A batch may be used within ``window`` seconds if it leaves the other segments the time that
        they need at least. Infinite where the window is too short for any.
        """
        spare = window * (1 + _SLACK) - self.elapsed(exit)
        if spare < 0:
            return np.inf
        least = self.least[: exit + 1]
        fits = least <= spare + least.min(axis=1, keepdims=True)
        shares = self.seconds[: exit + 1] / np.arange(1, least.shape[1] + 1)
        return float(np.where(fits, shares, np.inf).min(axis=1).sum())

    def chance(self, exit: int, window: float) -> float:
        """The largest probability of an answer from ``exit`` within ``window`` seconds: the mean
        time that passes in the window is at most the window."""
        if window * (1 + _SLACK) < self.elapsed(exit):
            return 0.0
        mean = float(self.seconds.min(axis=1)[: exit + 1].sum())
        return min(1.0, (window * (1 + 2 * _SLACK) - self.beside) / mean)


def effective_seconds(durations: NDArray[np.float64]) -> float:
    """The least device seconds of a run for each time that it ends in its window.

    ``durations`` (float64 ``[n]``) are equally likely. The result is the least, over all times r,
    of the mean of ``min(duration, r)`` over the share of durations up to r: how much of a run falls
    into a window, over the chance that it ends there. It is the mean for durations that are "new
    better than used in expectation", as all with a rising hazard rate are.
    """
    ordered = np.sort(durations)
    count = len(ordered)
    ended = np.arange(1, count + 1)
    inside = np.cumsum(ordered) + (count - ended) * ordered
    return max(float(ordered[0]), float((inside / ended).min()))


def _median(quantiles: Quantiles) -> NDArray[np.float64]:
    return np.array([quantiles.p50])


def _least_energies(costs: CostModel, sizes: Sequence[int]) -> tuple[float | None, ...]:
    """Cumulative least joules of one sample at each exit."""
    energies: list[float | None] = []
    total: float | None = 0.0
    for segment in range(costs.segments):
        joules = [costs.planned_energy(segment, segment, size) for size in sizes]
        known = [value for value in joules if value is not None]
        total = total + min(known) if total is not None and known == joules else None
        energies.append(total)
    return tuple(energies)


@dataclass(frozen=True, slots=True, eq=False)
class Tasks:
    """The requests that can be answered rightly within their bounds, as a clairvoyant sees them.

    All float64 ``[tasks]``: ``release`` and ``deadline`` in seconds, the least ``seconds`` of
    device time, and ``limit``, the largest probability of success. ``requests`` counts all
    requests, also those that cannot succeed.
    """

    release: NDArray[np.float64]
    deadline: NDArray[np.float64]
    seconds: NDArray[np.float64]
    limit: NDArray[np.float64]
    requests: int

    @classmethod
    def of(
        cls,
        trace: Trace,
        samples: NDArray[np.int64],
        sizes: Sequence[tuple[Calibration, LeastCosts]],
    ) -> Tasks:
        """The tasks of ``trace``, whose request i is about the sample ``samples[i]``.

        The first exit that is right counts: later ones cost more of everything. Where the model
        has several input ``sizes``, a task takes the least that it takes at any of them, and its
        other figures are the best of all: that bounds each from above.
        """
        firsts, network = [], sizes[0][1].network
        for table, _ in sizes:
            found = np.where(table.correct.any(axis=1), table.correct.argmax(axis=1), -1)
            firsts.append(found[samples].tolist())
        known: dict[tuple[int, int, float], tuple[float, float]] = {}
        rows: list[tuple[float, float, float, float]] = []
        beside = min(each.beside for _, each in sizes)
        for arrival, *exits in zip(trace, *firsts, strict=True):
            bounds, seconds, limit = arrival.bounds, np.inf, 0.0
            window = np.inf if bounds.max_latency is None else bounds.max_latency
            for size, exit in enumerate(exits):
                least = sizes[size][1]
                if exit < 0 or not is_affordable(bounds.max_energy, least.energy[exit]):
                    continue
                key = (size, exit, window)
                if key not in known:
                    known[key] = least.device_seconds(exit, window), least.chance(exit, window)
                if known[key][1] > 0:
                    seconds, limit = min(seconds, known[key][0]), max(limit, known[key][1])
            if limit > 0:
                release = arrival.time + network
                rows.append((release, release + window - beside, seconds, limit))
        release, deadline, seconds, limit = np.array(rows, np.float64).reshape(-1, 4).T
        return cls(release, deadline, seconds, limit, len(trace))

    @classmethod
    def join(cls, parts: Sequence[Tasks]) -> Tasks:
        """The tasks of several models that share the device."""
        return cls(
            np.concatenate([part.release for part in parts]),
            np.concatenate([part.deadline for part in parts]),
            np.concatenate([part.seconds for part in parts]),
            np.concatenate([part.limit for part in parts]),
            sum(part.requests for part in parts),
        )


def is_affordable(cap: float | None, least: float | None) -> bool:
    """Whether a ``cap`` in joules can be kept where ``least`` are spent; None is no cap, and
    unknown."""
    return cap is None or least is None or least <= cap * (1 + _SLACK)
