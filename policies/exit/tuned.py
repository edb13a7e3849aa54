"""Thresholds that rise while inputs are not like the calibration data.

A plan's threshold was certified along with all above it, so each of these keeps what the plan
promises, whatever chooses among them and when: a fixed sequence of tests
(``policies.plan.thresholds``) accepts any unsafe one with probability delta at most. This policy
stays in that set. While inputs are like the calibration data it stops where plans say. While they
are not, it stops at the lowest threshold that a sample of them certifies, and nowhere early until
there is a sample. That takes no labels: answers are compared with those of the deepest exit.
"""

from __future__ import annotations

from collections import deque
from math import inf

import numpy as np
from numpy.typing import NDArray

from delen.bundle.calibration import Calibration
from delen.core.plan import Decision, ExitView
from policies.exit.bounds import decide_by_bounds, stop_at_end_or_cap
from policies.exit.learning import FullRun
from policies.plan.thresholds import agreement_threshold

WINDOW = 192
"""So many of the last inputs are compared with others."""

SAMPLE = 500
"""So many full runs are a sample."""

_BINS = 4
_EVERY = 8
_DIFFERENT = 30.7
_ALIKE = 7.8
"""Chi-squared with _BINS - 1 degrees of freedom is above these by chance once in a million times,
and once in 20: the one begins a new sample, the other is needed to return to the calibration."""

Counts = NDArray[np.float64]


class TunedThresholds:
    """How thresholds of models are tuned: at most the share ``budget`` of the answers to other
    inputs may differ from the deepest exit's, with probability ``level`` over the draw of their
    sample."""

    by_threshold = True

    def __init__(self, budget: float, level: float) -> None:
        self._budget = budget
        self._level = level

    def for_model(self, table: Calibration, deepest: int) -> ModelThresholds:
        return ModelThresholds(self._budget, self._level, table, deepest)

    def decide(self, view: ExitView) -> Decision:
        return decide_by_bounds(view)


class ModelThresholds:
    """The default policy of one model, with no threshold below ``raised``.

    The first exit's confidences, which every request has, show whether the last WINDOW inputs are
    like the reference: the calibration ``table``, or once there is one the sample.
    """

    by_threshold = True

    def __init__(self, budget: float, level: float, table: Calibration, deepest: int) -> None:
        self._budget = budget
        self._level = level
        self._deepest = deepest
        first = table.confidence[:, 0].astype(np.float64)
        self._edges = np.quantile(first, np.arange(1, _BINS) / _BINS)
        calibration = self._count(first, table.weights) * (table.units / table.samples)
        self._calibration = self._reference = calibration
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._seen = 0
        self._sample: list[FullRun] | None = None
        self.raised = 0.0
        """The lowest threshold: 0 where plans' own are in force, inf while nothing stops early."""
        self.reports: list[str] = []

    @property
    def has_departed(self) -> bool:
        return self._sample is not None or self._reference is not self._calibration

    def decide(self, view: ExitView) -> Decision:
        if view.exit == 0:
            self._watch(view.confidence)
        if view.confidence < self.raised:
            return stop_at_end_or_cap(view)
        return decide_by_bounds(view)

    def learn(self, run: FullRun) -> None:
        """Add ``run`` to the sample that is being taken, and tune once that is complete. Audits
        that stand for several answers are left to the test for drift."""
        sample = self._sample
        if sample is None or run.weight != 1:
            return
        sample.append(run)
        if len(sample) < SAMPLE:
            return
        self._sample = []
        exits = self._deepest + 1
        confidence = np.array([each.confidences[:exits] for each in sample], np.float32)
        agrees = np.array([each.agrees[:exits] for each in sample], bool)
        answers = np.where(agrees, 0, 1 + np.arange(exits)).astype(np.int32)
        found = agreement_threshold(
            Calibration(confidence, agrees, answers), self._deepest, self._budget, self._level
        )
        self._reference = self._count(confidence[:, 0].astype(np.float64))
        self.raised, self._sample = inf if found is None else found.value, None
        lowest = "no threshold" if found is None else f"threshold {found.value:g}"
        self.reports.append(f"by {SAMPLE} of the other inputs, {lowest} is certified for them")

    def _watch(self, confidence: float) -> None:
        """Follow the inputs: to others, which are sampled, and back to those of the calibration."""
        self._recent.append(confidence)
        self._seen += 1
        if self._seen % _EVERY or len(self._recent) < WINDOW:
            return
        recent = self._count(np.array(self._recent))
        if self.has_departed and _difference(recent, self._calibration) <= _ALIKE:
            self.raised, self._sample, self._reference = 0.0, None, self._calibration
            self.reports.append("inputs are like the calibration data again: thresholds as planned")
        elif self._sample is None and _difference(recent, self._reference) > _DIFFERENT:
            self.raised, self._sample = inf, []
            self.reports.append(
                f"inputs have changed: none stops early by its confidence until {SAMPLE} have run "
                "to the deepest exit"
            )

    def _count(
        self, confidences: NDArray[np.float64], weights: NDArray[np.float64] | None = None
    ) -> Counts:
        bins = np.searchsorted(self._edges, confidences)
        return np.bincount(bins, weights, minlength=_BINS).astype(np.float64)


def _difference(one: Counts, other: Counts) -> float:
    """Pearson's chi-squared between two samples by how many there are in each bin (Numerical
    Recipes, 3rd edition, section 14.3)."""
    both, ratio = one + other, float(np.sqrt(other.sum() / one.sum()))
    filled = both > 0
    parts = (ratio * one - other / ratio)[filled] ** 2 / both[filled]
    return float(parts.sum())


def tuned_policy(exits: int, budget: float = 0.01, level: float = 0.95) -> TunedThresholds:
    """The entry point ``tuned``."""
    return TunedThresholds(budget, level)
