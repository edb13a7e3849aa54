"""The criterion of confidence that costs least, and the calibration table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from delen.bundle.calibration import THRESHOLDS, Calibration, Groups
from delen.bundle.confidence import CRITERIA, MAX_PROBABILITY, confidences
from multiexit_models.calibrate.temperature import Labels, Logits, softmax

ALLOWED_LOSS = 0.005
"""Accuracy that a criterion may lose against the last exit where costs are compared."""

LEAST_GAIN = 0.01
"""What a criterion must save against the largest probability, as a share of a full run."""


def make_calibration(
    logits: Logits,
    labels: Labels,
    temperatures: Sequence[float],
    criterion: str = MAX_PROBABILITY,
    groups: Groups | None = None,
) -> Calibration:
    """The calibration table of ``logits`` ``[exits, n, classes]``, with ``labels`` and perhaps
    ``groups`` ``[n]``.

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
        groups,
    )


@dataclass(frozen=True, slots=True)
class CriterionScore:
    """How cheap one criterion makes answers nearly as good as the last exit's.

    ``cost`` is the least mean cost, as a share of a full run's, at which the accuracy stays within
    ``ALLOWED_LOSS`` of the last exit's. ``threshold`` has this cost and ``accuracy``; it is None
    where only full runs are accurate enough.
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
    The largest probability is the simplest and stays unless another saves at least ``LEAST_GAIN``
    of a full run: smaller gains are chance.
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
    mean_costs = table.share_curve(last) @ shares_of_full
    accuracies = table.curve(last).accuracy
    kept = accuracies >= table.accuracy(last) - ALLOWED_LOSS
    cheapest = int(np.where(kept, mean_costs, np.inf).argmin())
    if not (kept[cheapest] and mean_costs[cheapest] < 1):
        return CriterionScore(1.0, None, table.accuracy(last))
    return CriterionScore(
        round(float(mean_costs[cheapest]), 5),
        float(THRESHOLDS[cheapest]),
        float(accuracies[cheapest]),
    )
