"""What readings teach of the static power and of each segment's factor: a Kalman filter.

The state is the device's power without requests, a common factor for every model and a deviation
for each of its segments, so that a segment's factor is the sum of the two: readings that only
tell the total move the common factor (the ratio measured / predicted), readings at which the mix
of segments differs move the deviations (a regression). Each reading is one observation
``watts = static + sum(factor * shown)``; West and Harrison, Bayesian Forecasting and Dynamic
Models (2nd ed., 1997), chapters 4 and 11, for the filter and for intervening at a change of level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, sqrt
from typing import NamedTuple

import numpy as np

from power.sources.series import Floats

_UNKNOWN_STATIC, _KNOWN_STATIC = (
    10.0,
    0.5,
)  # watts: sd of the static power without and with a profile
_STATIC_DRIFT = 0.005  # watts, and parts of one: sd of the drift in a second
_COMMON_DRIFT, _DEVIATION_DRIFT = 0.002, 0.001
_LEAST_COMMON = 0.25  # sd of the common factor even of a trusted prediction
_LEAST_DEVIATION, _MOST_DEVIATION = 0.1, 0.4  # bounds of the sd of a segment's deviation

_NOISE, _LEAST_NOISE = 0.1, 0.01  # watts: sd of a reading at first, and at least
_NOISE_GAIN = 0.02  # by which one reading moves what is believed of noise and mistiming
_IMPLAUSIBLE = 3.5  # sds from which on a reading is
_RUN = 3  # implausible readings in a row that are a change of the static power
_LOWEST, _HIGHEST = 0.05, 20.0  # factors beyond these are not believed


class Segment(NamedTuple):
    """What has a factor of its own. ``by_seconds`` where its works come without joules."""

    model: str
    number: int
    by_seconds: bool = False


class Belief:
    """Static watts and factors, with their covariance, after the readings so far.

    ``implausible`` counts the readings that were so.
    """

    def __init__(self, static: float | None = None) -> None:
        self._mean = np.array([0.0 if static is None else static])
        self._prior = np.array([_UNKNOWN_STATIC if static is None else _KNOWN_STATIC])
        self._drift = np.array([_STATIC_DRIFT])
        self._cov = np.diag(self._prior**2)
        self._common: dict[str, int] = {}
        self._own: dict[Segment, int] = {}
        self._noise = _NOISE**2
        self._mistimed = 0.0
        self._last_miss = 0.0
        self.implausible = 0
        self._implausible: list[float] = []

    @property
    def static(self) -> tuple[float, float]:
        """Watts without requests now, and their standard deviation."""
        return float(self._mean[0]), sqrt(max(float(self._cov[0, 0]), 0.0))

    @property
    def segments(self) -> Sequence[Segment]:
        return tuple(self._own)

    def factor(self, segment: Segment) -> float:
        """The factor of ``segment``; of one not seen yet, its model's common one; else 1."""
        common = self._common.get(segment.model)
        if common is None:
            return 1.0
        own = self._own.get(segment)
        value = self._mean[common] + (self._mean[own] if own is not None else 0.0)
        return float(min(max(value, _LOWEST), _HIGHEST))

    def meet(self, segment: Segment, relative_sd: float) -> None:
        """Let ``segment`` have a factor, if it has none: 1, give or take ``relative_sd``."""
        if segment in self._own:
            return
        if segment.model not in self._common:
            sd = max(relative_sd, _LEAST_COMMON)
            self._common[segment.model] = self._extend(1.0, sd, _COMMON_DRIFT)
        sd = min(max(relative_sd, _LEAST_DEVIATION), _MOST_DEVIATION)
        self._own[segment] = self._extend(0.0, sd, _DEVIATION_DRIFT)

    def forget(self, model: str) -> None:
        """Drop what is known of ``model``."""
        gone = {i for segment, i in self._own.items() if segment.model == model}
        gone |= {i for name, i in self._common.items() if name == model}
        kept = [i for i in range(len(self._mean)) if i not in gone]
        place = {old: new for new, old in enumerate(kept)}
        self._mean, self._prior = self._mean[kept], self._prior[kept]
        self._drift, self._cov = self._drift[kept], self._cov[np.ix_(kept, kept)]
        self._common = {n: place[i] for n, i in self._common.items() if i in place}
        self._own = {s: place[i] for s, i in self._own.items() if i in place}

    def widen(self) -> None:
        """Doubt everything as at first, from what is believed now."""
        self._cov = np.diag(self._prior**2)
        self._implausible = []

    def elapse(self, seconds: float, active: Sequence[Segment]) -> None:
        """Let the static power, and the factors of what is ``active``, drift for ``seconds``."""
        rows = [0]
        for segment in active:
            rows += [self._common[segment.model], self._own[segment]]
        rows = list(dict.fromkeys(rows))
        self._cov[rows, rows] += self._drift[rows] ** 2 * seconds
        excess = np.sqrt(np.maximum(np.diag(self._cov) / self._prior**2, 1.0))
        self._cov /= excess[:, None] * excess

    def relative_sd(self, joules: Mapping[Segment, float]) -> float:
        """The standard deviation of the sum of ``joules`` x their factors, as a part of it; 0 of
        nothing, infinite where there is a segment that readings never had a say in."""
        if not all(segment in self._own for segment in joules):
            return inf
        total = sum(self.factor(segment) * value for segment, value in joules.items())
        if total <= 0:
            return 0.0
        row = self._row(list(joules), np.array(list(joules.values())), 0.0)
        return sqrt(max(float(row @ self._cov @ row), 0.0)) / total

    def learn(
        self,
        segments: Sequence[Segment],
        watts: Floats,
        shown: Floats,
        doubt: Floats,
        near: Floats | None = None,
        repeats: float = 1.0,
    ) -> None:
        """Take in readings ``watts`` ``[n]``, in order, at which ``segments`` were predicted to
        show ``shown`` ``[n, s]`` watts give or take ``doubt`` ``[n]``. ``near`` ``[n]`` is by how
        much that would vary if moments were a little off; which part of it is real is learnt.
        ``repeats`` of them tell as much as one, where a sensor is slow.

        One that is implausible is left out. When several in a row are so in the same direction,
        the static power is taken to have changed: it is doubted as far as they are off.
        """
        rows = np.stack([self._row(segments, each, 1.0) for each in shown])
        around = np.zeros(len(watts)) if near is None else near**2
        for row, value, spread, beside in zip(
            rows, watts.tolist(), (doubt**2).tolist(), around.tolist(), strict=True
        ):
            self._learn(row, value, spread, beside, repeats)

    def _learn(
        self, row: Floats, watts: float, spread: float, beside: float, repeats: float
    ) -> None:
        miss = watts - float(row @ self._mean)
        gain = self._cov @ row
        known = float(row @ gain)
        if beside > self._noise:
            excess = (miss * miss - known - spread - self._noise) / beside
            self._mistimed += _NOISE_GAIN * (min(max(excess, -1.0), 3.0) - self._mistimed)
        spread += max(self._mistimed, 0.0) * beside
        variance = known + spread + self._noise
        if spread <= self._noise:
            scatter = (miss - self._last_miss) ** 2 / 2
            self._last_miss = miss
            surprise = max(min(scatter, 9 * variance) - known - spread, 0.0)
            self._noise += _NOISE_GAIN * (surprise - self._noise)
            self._noise = max(self._noise, _LEAST_NOISE**2)
        if miss * miss > _IMPLAUSIBLE**2 * variance:
            if self._implausible and self._implausible[-1] * miss < 0:
                self._implausible = []
            self._implausible.append(miss)
            self.implausible += 1
            if len(self._implausible) < _RUN:
                return
            self._cov[0, 0] += miss * miss
            gain = self._cov @ row
            known = float(row @ gain)
        self._implausible = []
        variance = known + repeats * (spread + self._noise)
        self._mean = self._mean + gain * (miss / variance)
        self._cov = self._cov - np.outer(gain, gain) / variance

    def _row(self, segments: Sequence[Segment], values: Floats, static: float) -> Floats:
        row = np.zeros(len(self._mean))
        row[0] = static
        for segment, value in zip(segments, values.tolist(), strict=True):
            row[self._common[segment.model]] += value
            row[self._own[segment]] += value
        return row

    def _extend(self, mean: float, sd: float, drift: float) -> int:
        place = len(self._mean)
        self._mean = np.append(self._mean, mean)
        self._prior = np.append(self._prior, sd)
        self._drift = np.append(self._drift, drift)
        cov = np.zeros((place + 1, place + 1))
        cov[:place, :place] = self._cov
        cov[place, place] = sd * sd
        self._cov = cov
        return place
