"""One temperature an exit, and how well confidences are calibrated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

LEAST_TEMPERATURE = 0.01
GREATEST_TEMPERATURE = 100.0
_HALVINGS = 60


def softmax(logits: Logits) -> Logits:
    """Probabilities over the last axis, in the dtype of ``logits``."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Logits = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature with the least negative log-likelihood of ``labels`` ``[n]``.

    ``logits`` are one exit's, ``[n, classes]``. The likelihood is convex in the inverse
    temperature (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, fit the same
    by gradient descent), so that halving on the sign of its slope finds the one minimum. Where
    there is no minimum (all right, or no better than chance) it is the limit of 0.01 or 100.
    """
    scores = logits.astype(np.float64)
    of_label = scores[np.arange(len(labels)), labels].mean()
    low, high = np.log(1 / GREATEST_TEMPERATURE), np.log(1 / LEAST_TEMPERATURE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = (softmax(scores * np.exp(middle)) * scores).sum(axis=1).mean()
        if expected > of_label:
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
