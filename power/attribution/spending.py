"""Predicted power of what ran, and what sensors of any delay would have shown of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from power.sources.series import Floats


@dataclass(slots=True)
class Runs:
    """Run i of segment ``numbers[i]`` is predicted to spend ``joules[i]``, evenly, from
    ``began[i]`` to ``ended[i]`` (seconds, ended > began). Runs may overlap."""

    numbers: NDArray[np.intp]
    began: Floats
    ended: Floats
    joules: Floats

    @staticmethod
    def of(table: Sequence[tuple[int, float, float, float]]) -> Runs:
        columns = np.array(table, dtype=np.float64).reshape(-1, 4).T
        return Runs(columns[0].astype(np.intp), columns[1], columns[2], columns[3])

    @staticmethod
    def join(parts: Sequence[Runs]) -> Runs:
        if not parts:
            return Runs.of(())
        columns = [(part.numbers, part.began, part.ended, part.joules) for part in parts]
        return Runs(*(np.concatenate(column) for column in zip(*columns, strict=True)))

    @property
    def latest(self) -> float:
        return float(self.ended.max(initial=-np.inf))

    def copy(self) -> Runs:
        return replace(self, numbers=self.numbers.copy())

    def take(self, chosen: NDArray[np.bool_]) -> Runs:
        return Runs(
            self.numbers[chosen], self.began[chosen], self.ended[chosen], self.joules[chosen]
        )


class Spending:
    """Watts, and joules spent up to a moment, of ``count`` segments that ``runs`` are of."""

    def __init__(self, runs: Runs, count: int) -> None:
        watts = runs.joules / (runs.ended - runs.began)
        times = np.concatenate([[-np.inf], runs.began, runs.ended])
        order = np.argsort(times, kind="stable")
        steps = np.zeros((len(times), count))
        rows = np.arange(1, len(times))
        steps[rows, np.tile(runs.numbers, 2)] = np.concatenate([watts, -watts])
        self._times = times[order]
        self._times[0] = self._times[1] if len(runs.began) else 0.0
        self._watts = np.cumsum(steps[order], axis=0)
        gaps = np.diff(self._times)[:, None]
        spent = gaps * self._watts[:-1]
        self._joules = np.zeros((len(times), count))
        np.cumsum(spent, axis=0, out=self._joules[1:])
        self._area = np.zeros((len(times), count))
        np.cumsum(gaps * (self._joules[:-1] + spent / 2), axis=0, out=self._area[1:])

    @staticmethod
    def nothing(count: int) -> Spending:
        return Spending(Runs.of(()), count)

    def under_hats(self, times: Floats, knots: Floats) -> Floats:
        """Mean watts ``[n, segments, k]`` under a triangle around each inner knot, ``knots``
        seconds before each of ``times``."""
        at, since = self._before(times[:, None] - knots)
        area = self._area[at] + since * (self._joules[at] + since / 2 * self._watts[at])
        means = -np.diff(area, axis=1) / np.diff(knots)[:, None]
        hats = -2 * np.diff(means, axis=1) / (knots[2:] - knots[:-2])[:, None]
        return np.asarray(np.swapaxes(hats, 1, 2))

    def under_boxes(self, times: Floats, widths: Floats, lags: Floats) -> Floats:
        """Mean watts ``[n, segments, k]`` over ``widths`` ``[n]`` seconds that end each of ``lags``
        before each of ``times``."""
        ends = times[:, None] - lags
        spent = self._spent(ends) - self._spent(ends - widths[:, None])
        return np.asarray(np.swapaxes(spent, 1, 2) / widths[:, None, None])

    def _spent(self, moments: Floats) -> Floats:
        at, since = self._before(moments)
        return np.asarray(self._joules[at] + since * self._watts[at])

    def _before(self, moments: Floats) -> tuple[NDArray[np.intp], Floats]:
        """The edge before each of ``moments`` (any shape), and the seconds since then."""
        at = np.maximum(np.searchsorted(self._times, moments, "right") - 1, 0)
        return at, np.maximum(moments - self._times[at], 0.0)[..., None]
