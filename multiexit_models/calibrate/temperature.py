"""One temperature an exit, and how well confidences are calibrated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

LEAST_TEMPERATURE = 0.01
GREATEST_TEMPERATURE = 100.0
PRIOR_DEVIATION = 1.0
"""Standard deviation of the prior of a temperature's logarithm."""
RESAMPLES = 500
LEVEL = 0.95
_GRID = 37
_HALVINGS = 40


def softmax(logits: Logits) -> Logits:
    """Probabilities over the last axis, in the dtype of ``logits``."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Logits = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The most probable temperature, from 0.01 to 100, given ``labels`` ``[n]``.

    ``logits`` are one exit's, ``[n, classes]``. The likelihood is that of Guo et al., "On
    Calibration of Modern Neural Networks", ICML 2017. Alone it has no maximum where all answers
    are right: ever lower temperatures are ever likelier, and then a wrong answer is as sure as a
    right one. The prior of the temperature's logarithm is normal, with mean 0 and deviation 1.
    The mean is 0 because training by cross-entropy fits the logits at the temperature 1. The
    deviation is a choice: 95 % of the prior lies between 0.14 and 7, so that it decides where the
    labels say nothing, and weighs as much as a few samples where they do.
    """
    scores = logits.astype(np.float64)
    of_label = scores[np.arange(len(labels)), labels].sum()

    def slope(log_inverse: float) -> float:
        """Of the negative log-posterior, by the logarithm of the inverse temperature."""
        inverse = np.exp(log_inverse)
        expected = (softmax(scores * inverse) * scores).sum()
        return float(inverse * (expected - of_label) + log_inverse / PRIOR_DEVIATION**2)

    def loss(log_inverse: float) -> float:
        scaled = scores * np.exp(log_inverse)
        greatest = scaled.max(axis=1)
        logs = greatest + np.log(np.exp(scaled - greatest[:, None]).sum(axis=1))
        misfit = logs.sum() - of_label * np.exp(log_inverse)
        return float(misfit + (log_inverse / PRIOR_DEVIATION) ** 2 / 2)

    grid = np.linspace(-np.log(GREATEST_TEMPERATURE), -np.log(LEAST_TEMPERATURE), _GRID)
    best = int(np.argmin([loss(point) for point in grid]))
    low, high = float(grid[max(0, best - 1)]), float(grid[min(_GRID - 1, best + 1)])
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if slope(middle) > 0:
            high = middle
        else:
            low = middle
    return float(np.exp(-(low + high) / 2))


def calibration_error(
    confidence: NDArray[np.floating[Any]], correct: NDArray[np.bool_], bins: int = 15
) -> float:
    """Expected calibration error over equal-width bins; both arguments are ``[n]``."""
    bin_of = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(bin_of, weights=confidence.astype(np.float64) - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def calibration_error_interval(
    confidence: NDArray[np.floating[Any]],
    correct: NDArray[np.bool_],
    seed: int = 0,
    groups: NDArray[np.int32] | None = None,
) -> tuple[float, float]:
    """A 95 % interval of the expected calibration error; arrays are ``[n]``. Where there are
    ``groups``, whole groups are drawn again.

    By the bootstrap (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section
    5). The error of few samples is on average above the true one, and that of resamples is so once
    more. The lower end is therefore the basic bootstrap's, which reflects the resamples about the
    measured error, and the upper end the percentile. The lower end is 0 where answers drawn from
    the confidences themselves have errors as large (Brocker and Smith, "Increasing the Reliability
    of Reliability Diagrams", 2007).
    """
    generator = np.random.default_rng(seed)
    measured, count = calibration_error(confidence, correct), len(correct)
    members = None if groups is None else _members(groups)
    resampled, calibrated = [], []
    for _ in range(RESAMPLES):
        if members is None:
            rows = generator.integers(0, count, count)
        else:
            drawn = generator.integers(0, len(members), len(members))
            rows = np.concatenate([members[group] for group in drawn])
        resampled.append(calibration_error(confidence[rows], correct[rows]))
        calibrated.append(calibration_error(confidence, generator.random(count) < confidence))
    high = float(np.quantile(resampled, (1 + LEVEL) / 2))
    if measured <= np.quantile(calibrated, LEVEL):
        return 0.0, high
    return max(0.0, 2 * measured - high), high


def _members(groups: NDArray[np.int32]) -> list[NDArray[np.int64]]:
    """The indices of each group's samples."""
    _, sizes = np.unique(groups, return_counts=True)
    return np.split(np.argsort(groups, kind="stable"), np.cumsum(sizes)[:-1])
