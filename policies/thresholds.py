"""Confidence thresholds with a guarantee, from the calibration table alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from delen.calibration import THRESHOLDS, Calibration


@dataclass(frozen=True, slots=True)
class Threshold:
    """A confidence at which to stop, and the accuracy expected over all requests that use it."""

    value: float
    accuracy: float


def certified_threshold(
    calibration: Calibration, deepest: int, floor: float, level: float
) -> Threshold | None:
    """The lowest threshold whose accuracy keeps ``floor`` with probability ``level``.

    Learn then Test (Angelopoulos et al., 2110.01052, section 3) with fixed-sequence testing:
    from the safest threshold down, each is tested for "accuracy < floor" by the exact binomial
    tail of its errors, and the last one before the first that is not rejected is taken. The
    sequence is fixed in advance, so no correction for the many thresholds is due. None when the
    safest already fails: the floor cannot be certified.
    """
    curve = calibration.curve(deepest)
    errors = curve.samples - curve.correct
    allowed = most_errors(curve.samples, 1 - floor, 1 - level)
    passed = errors <= allowed
    accepted = len(passed) if passed.all() else int(np.argmin(passed))
    if accepted == 0:
        return None
    last = accepted - 1
    return Threshold(float(THRESHOLDS[last]), float(curve.accuracy[last]))


def highest_floor(calibration: Calibration, deepest: int, level: float) -> float:
    """The highest floor that ``certified_threshold`` certifies: the lower confidence bound.

    Rounded down to four decimals, so that a request for just this floor is feasible.
    """
    curve = calibration.curve(deepest)
    errors = int(curve.samples - curve.correct[0])
    low, high = 0, 10_000
    while high - low > 1:
        middle = (low + high) // 2
        if errors <= most_errors(curve.samples, 1 - middle / 10_000, 1 - level):
            low = middle
        else:
            high = middle
    return low / 10_000


def lossless_threshold(
    calibration: Calibration, deepest: int, tolerance: float, level: float
) -> Threshold:
    """The lowest threshold that loses at most ``tolerance`` of accuracy against ``deepest``.

    Paired on the calibration images: the upper confidence bound (normal approximation, at
    ``level``) of the mean loss is within the tolerance, at this threshold and all above it.
    """
    last_right = calibration.correct[:, deepest]
    chosen = 0
    for index, value in enumerate(THRESHOLDS):
        right = calibration.right_answers(float(value), deepest)
        loss = last_right.astype(np.int8) - right.astype(np.int8)
        margin = NormalDist().inv_cdf(level) * float(loss.std()) / sqrt(len(loss))
        if float(loss.mean()) + margin > tolerance:
            break
        chosen = index
    return Threshold(float(THRESHOLDS[chosen]), float(calibration.curve(deepest).accuracy[chosen]))


@lru_cache(maxsize=4096)
def most_errors(samples: int, error_rate: float, delta: float) -> int:
    """The most errors among ``samples`` whose binomial tail at ``error_rate`` is at most ``delta``.

    That is, the largest k with P(Binomial(samples, error_rate) <= k) <= delta; -1 if there is none.
    """
    tail = _binomial_cdf(samples, error_rate)
    return int(np.searchsorted(tail, delta, side="right")) - 1


def _binomial_cdf(samples: int, rate: float) -> NDArray[np.float64]:
    """P(Binomial(samples, rate) <= k) for k from 0 to ``samples``, summed in the log domain."""
    if rate <= 0:
        return np.ones(samples + 1)
    if rate >= 1:
        return np.append(np.zeros(samples), 1.0)
    k = np.arange(samples)
    log_ratio = np.log(samples - k) - np.log(k + 1) + np.log(rate) - np.log1p(-rate)
    log_mass = samples * np.log1p(-rate) + np.concatenate(([0.0], np.cumsum(log_ratio)))
    cdf: NDArray[np.float64] = np.minimum(np.cumsum(np.exp(log_mass)), 1.0)
    return cdf
