"""Temperatures, calibration errors, the criterion and the calibration table from logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.bundle.calibration import THRESHOLDS, Calibration
from delen.bundle.confidence import CRITERIA, MAX_PROBABILITY, confidences

Logits = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

LEAST_TEMPERATURE = 0.01
GREATEST_TEMPERATURE = 100.0
_HALVINGS = 60

ALLOWED_LOSS = 0.005
"""Accuracy that a criterion may lose against the last exit where its cost is compared."""

LEAST_GAIN = 0.01
"""What a criterion must save against the largest probability, as a share of a full run."""


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


def make_calibration(
    logits: Logits,
    labels: Labels,
    temperatures: Sequence[float],
    criterion: str = MAX_PROBABILITY,
) -> Calibration:
    """The calibration table of ``logits`` ``[exits, n, classes]`` and ``labels`` ``[n]``.

    Confidences are ``criterion``'s of softmax(logits / temperature), in float32 as the exported
    graphs compute them. Raises ValueError where the sizes do not fit.
    """
    if logits.ndim != 3 or logits.shape[:2] != (len(temperatures), len(labels)):
        raise ValueError(
            f"logits {logits.shape} must be [exits, n, classes] with {len(temperatures)} exits, "
            f"one a temperature, and n = {len(labels)}, one a label"
        )
    divisors = np.asarray(temperatures, np.float32)[:, None, None]
    confidence = confidences(criterion, softmax(logits.astype(np.float32) / divisors))
    predictions = logits.argmax(axis=2).T
    return Calibration(
        np.ascontiguousarray(confidence.T),
        np.ascontiguousarray(predictions == labels[:, None]),
        np.ascontiguousarray(predictions.astype(np.int32)),
    )


@dataclass(frozen=True, slots=True)
class CriterionScore:
    """How cheap one criterion makes answers nearly as good as the last exit's.

    ``cost`` is the least mean cost, as a share of a full run's, at which the accuracy keeps
    within ``ALLOWED_LOSS`` of the last exit's. It is reached at ``threshold``, with ``accuracy``;
    ``threshold`` is None where only full runs reach it.
    """

    cost: float
    threshold: float | None
    accuracy: float


@dataclass(frozen=True, slots=True)
class CriterionChoice:
    """The criterion chosen, and the score of each."""

    name: str
    scores: Mapping[str, CriterionScore]


def choose_criterion(
    logits: Logits, labels: Labels, temperatures: Sequence[float], costs: Sequence[float]
) -> CriterionChoice:
    """The criterion that keeps the last exit's accuracy, less ``ALLOWED_LOSS``, at least cost.

    ``logits`` ``[exits, n, classes]`` and ``labels`` ``[n]`` are of the validation part, never
    of the calibration part; ``costs`` are those of a run that ends at each exit, in any unit.
    The largest probability is the simplest and so is kept unless another saves at least
    ``LEAST_GAIN`` of a full run: smaller gains are chance.
    """
    scores = {
        criterion: _score(make_calibration(logits, labels, temperatures, criterion), costs)
        for criterion in CRITERIA
    }
    best = min(scores, key=lambda criterion: scores[criterion].cost)
    gain = scores[MAX_PROBABILITY].cost - scores[best].cost
    return CriterionChoice(best if gain >= LEAST_GAIN else MAX_PROBABILITY, scores)


def _score(table: Calibration, costs: Sequence[float]) -> CriterionScore:
    last = table.exits - 1
    shares_of_full = np.asarray(costs, np.float64) / costs[-1]
    taken = np.array([table.exit_shares(threshold, last) for threshold in THRESHOLDS])
    mean_costs, accuracies = taken @ shares_of_full, table.curve(last).accuracy
    kept = accuracies >= table.accuracy(last) - ALLOWED_LOSS
    cheapest = int(np.where(kept, mean_costs, np.inf).argmin())
    if not (kept[cheapest] and mean_costs[cheapest] < 1):
        return CriterionScore(1.0, None, table.accuracy(last))
    return CriterionScore(
        round(float(mean_costs[cheapest]), 5),
        float(THRESHOLDS[cheapest]),
        float(accuracies[cheapest]),
    )
