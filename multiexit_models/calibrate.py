"""Temperatures, calibration errors and the calibration table from held-out logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.calibration import Calibration

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
    by gradient descent), so that halving on the sign of its slope finds the one minimum. Data
    that want none, all right or no better than chance, get the limit of 0.01 or 100.
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


def make_calibration(logits: Logits, labels: Labels, temperatures: Sequence[float]) -> Calibration:
    """The calibration table of ``logits`` ``[exits, n, classes]`` and ``labels`` ``[n]``.

    Confidence is the largest of softmax(logits / temperature), float32, as the exported graphs
    compute it. Raises ValueError where the sizes do not fit.
    """
    if logits.ndim != 3 or logits.shape[:2] != (len(temperatures), len(labels)):
        raise ValueError(
            f"logits {logits.shape} must be [exits, n, classes] with {len(temperatures)} exits, "
            f"one a temperature, and n = {len(labels)}, one a label"
        )
    divisors = np.asarray(temperatures, np.float32)[:, None, None]
    confidence = softmax(logits.astype(np.float32) / divisors).max(axis=2)
    correct = logits.argmax(axis=2) == labels
    return Calibration(
        np.ascontiguousarray(np.minimum(confidence, 1).T), np.ascontiguousarray(correct.T)
    )
