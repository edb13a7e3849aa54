"""Intervals of the mean of a few repeated measurements, and means that may not fall."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 10_000


def resampled_means(rounds: Floats, seed: int) -> Floats:
    """Means ``[RESAMPLES, k]`` of ``rounds`` ``[n, k]`` drawn n times with replacement.

    Rows are drawn whole, so that what moved all the figures of a round moves them together here.
    """
    count = len(rounds)
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, RESAMPLES)
    return np.asarray(drawn @ rounds / count)


def interval(resamples: Floats, rounds: int) -> tuple[Floats, Floats]:
    """The ends of the LEVEL intervals of ``resamples`` ``[RESAMPLES, k]`` of ``rounds`` rounds.

    Percentiles alone are too narrow where there are few rounds: they lack the factor of
    sqrt(n / (n - 1)), and the tails of Student's t. So they are taken further out by both, the
    expanded percentile interval of Hesterberg, What Teachers Should Know about the Bootstrap
    (The American Statistician 69:4, 2015).
    """
    tail = (1 - LEVEL) / 2
    reach = sqrt(rounds / (rounds - 1)) * student(1 - tail, rounds - 1)
    share = NormalDist().cdf(-reach)
    low, high = np.quantile(resamples, (share, 1 - share), axis=0)
    return low, high


def student(level: float, freedom: int) -> float:
    """The quantile of Student's t at ``level``, by its expansion about the normal one.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5. Within 0.1 % for the usual
    levels and 4 degrees of ``freedom`` or more, and 2 % too low for 2.
    """
    z = float(NormalDist().inv_cdf(level))
    terms: tuple[float, ...] = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / float(freedom) ** power for power, term in enumerate(terms))


def rising(figures: Floats) -> Floats:
    """The sequences nearest to ``figures`` ``[..., k]`` that start at 0 or above and never fall.

    Least squares, by the max-min formula of isotonic regression (Robertson, Wright and Dykstra,
    Order Restricted Statistical Inference, 1988, section 1.4): what falls is levelled to the mean
    of its stretch.
    """
    count = figures.shape[-1]
    sums = np.concatenate([np.zeros((*figures.shape[:-1], 1)), np.cumsum(figures, -1)], -1)
    fitted = np.empty_like(figures)
    for k in range(count):
        best = np.full(figures.shape[:-1], -np.inf)
        for first in range(k + 1):
            lengths = np.arange(k + 1, count + 1) - first
            means = (sums[..., k + 1 :] - sums[..., first, None]) / lengths
            best = np.maximum(best, means.min(-1))
        fitted[..., k] = best
    return np.maximum(fitted, 0.0)
