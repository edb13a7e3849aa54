"""Apparate (Dai et al., SOSP 2024): exits and thresholds tuned to agree with the last exit.

Its rules and constants are those of the authors' code for vision (dywsjtu/apparate,
``controller.py``), with a threshold a ramp, an input leaving where 1 - confidence is below it:

- After each batch, one that loses more than the budget counts as a violation. From the second one
  on, or while the loss of all batches is above the budget, ramps that lost more than the budget in
  this batch get threshold 0: nothing leaves there. At the first violation, the first batch and
  after ramps changed, thresholds are searched anew on the last WINDOW batches.
- The search is greedy from 0: the step that costs the least agreement for the time that it saves,
  steps doubled where they succeed and halved where none does.
- Every RAMP_BATCHES batches violations are forgotten and ramps judged: one that saved nothing in
  the last UTILITIES batches is dropped, unless a search saves two points more than now. Where none
  is, and fewer than MOST_RAMPS are, one is added at half the first one's index.

It differs from its source in two ways. Apparate runs every input to the last exit; here a batch is
of BATCH full runs, audits among them weighted by how many answers they stand for. And ramps cost
nothing: the exits of a bundle are part of its segments and run whether or not an input may leave,
so that a ramp's utility is what leaves there times what that saves, and the limit on tail latency
(ramps may add at most 5 %) never binds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from delen.bundle.calibration import Calibration
from delen.core.plan import Decision, ExitView
from policies.exit.bounds import BY_POLICY, stop_at_end_or_cap
from policies.exit.learning import FullRun

BATCH = 16
WINDOW = 4
UTILITIES = 20
RAMP_BATCHES = 30
MOST_RAMPS = 3

_SEARCH_LOSS = 1e-4
_FIRST_STEP = 0.01
_LEAST_STEP = 0.001
_WORTH_A_SEARCH = 0.02
_VIOLATIONS = 2


class ApparatePolicy:
    """How ramps of models are tuned: to lose at most the share ``budget`` of agreement. Without a
    model nothing leaves early."""

    by_threshold = False

    def __init__(self, budget: float) -> None:
        self._budget = budget

    def decide(self, view: ExitView) -> Decision:
        return stop_at_end_or_cap(view)

    def for_model(self, table: Calibration, deepest: int) -> Ramps:
        return Ramps(self._budget, deepest)


class _Judged(NamedTuple):
    """Thresholds on some runs: the share that agrees, the share of time ``saved``, and of each ramp
    what its leaving saved and the share of those leaving that agrees (1 where none does)."""

    agrees: float
    saved: float
    utilities: Mapping[int, float]
    agreements: Mapping[int, float]


class Ramps:
    """The ramps of one model up to exit ``deepest``, by exit, with their ``thresholds``."""

    by_threshold = False
    has_departed = False
    raised = 0.0

    def __init__(self, budget: float, deepest: int) -> None:
        self._budget = budget
        spread = np.linspace(0, max(0, deepest - 1), MOST_RAMPS + 2, dtype=int)[1:-1]
        self.thresholds = {ramp: 0.0 for ramp in sorted({*spread.tolist()}) if ramp < deepest}
        self._batch: list[FullRun] = []
        self._window: deque[list[FullRun]] = deque(maxlen=WINDOW)
        self._utilities: dict[int, deque[float]] = {}
        self._batches = self._violations = 0
        self._weight = self._agreed = 0.0
        self._is_changed = True
        self.reports: list[str] = []

    def decide(self, view: ExitView) -> Decision:
        threshold = self.thresholds.get(view.exit, 0.0)
        if view.next_exit is not None and 1 - view.confidence < threshold:
            return BY_POLICY
        return stop_at_end_or_cap(view)

    def learn(self, run: FullRun) -> None:
        self._batch.append(run)
        if len(self._batch) == BATCH and self.thresholds:
            self._end_batch(self._batch)
            self._batch = []

    def _end_batch(self, batch: list[FullRun]) -> None:
        self._window.append(batch)
        self._batches += 1
        judged, weight = _judge(batch, self.thresholds), sum(run.weight for run in batch)
        self._weight += weight
        self._agreed += weight * judged.agrees
        for ramp in self.thresholds:
            kept = self._utilities.setdefault(ramp, deque(maxlen=UTILITIES))
            kept.append(judged.utilities[ramp])
        least = 1 - self._budget
        is_violated = judged.agrees < least
        self._violations += is_violated
        if self._violations >= _VIOLATIONS or self._agreed / self._weight < least:
            for ramp, agreement in judged.agreements.items():
                if agreement < least:
                    self.thresholds[ramp] = 0.0
        elif is_violated or self._is_changed:
            self.thresholds = _search(self._recent(), self.thresholds)
            self._is_changed = False
        if self._batches % RAMP_BATCHES == 0:
            self._violations = 0
            self._adjust(judged.saved)

    def _recent(self) -> list[FullRun]:
        return [run for batch in self._window for run in batch]

    def _adjust(self, saved: float) -> None:
        """Drop ramps that save nothing, or add one; ``saved`` is what all save now."""
        idle = [ramp for ramp in self.thresholds if max(self._utilities[ramp]) <= 0]
        ramps = set(self.thresholds)
        if idle:
            recent = self._recent()
            found = _search(recent, self.thresholds)
            if _judge(recent, found).saved - saved > _WORTH_A_SEARCH:
                self.thresholds = found
                return
            ramps -= set(idle if len(idle) < len(ramps) else idle[:-1])
        elif len(ramps) < MOST_RAMPS:
            ramps.add(min(ramps) // 2)
        if ramps != set(self.thresholds):
            self._utilities = {r: kept for r, kept in self._utilities.items() if r in ramps}
            self.thresholds = {ramp: self.thresholds.get(ramp, 0.0) for ramp in sorted(ramps)}
            self._is_changed = True
            self.reports.append(f"inputs may leave at exits {sorted(ramps)}")


def _judge(runs: Sequence[FullRun], thresholds: Mapping[int, float]) -> _Judged:
    ramps = list(thresholds)
    limits = np.array([thresholds[ramp] for ramp in ramps])
    unsure = 1 - np.array([[run.confidences[ramp] for ramp in ramps] for run in runs])
    agrees = np.array([[run.agrees[ramp] for ramp in ramps] for run in runs])
    saves = np.array([[1 - run.seconds[ramp] / run.seconds[-1] for ramp in ramps] for run in runs])
    leaves = unsure < limits
    leaves &= np.cumsum(leaves, axis=1) == 1
    weights = np.array([run.weight for run in runs])[:, None]
    left: NDArray[np.float64] = weights * leaves
    total = weights.sum()
    utilities, right = (left * saves).sum(axis=0) / total, (left * agrees).sum(axis=0)
    leaving = left.sum(axis=0)
    shares = np.divide(right, leaving, out=np.ones(len(ramps)), where=leaving > 0)
    return _Judged(
        float(1 - (leaving - right).sum() / total),
        float(utilities.sum()),
        dict(zip(ramps, utilities.tolist(), strict=True)),
        dict(zip(ramps, shares.tolist(), strict=True)),
    )


def _search(runs: Sequence[FullRun], ramps: Mapping[int, float]) -> dict[int, float]:
    """Thresholds of ``ramps`` that save time on ``runs`` and lose nearly no agreement."""
    found = dict.fromkeys(ramps, 0.0)
    steps = dict.fromkeys(ramps, _FIRST_STEP)
    now = _judge(runs, found)
    while True:
        tried = []
        for ramp in ramps:
            if found[ramp] <= 1:
                judged = _judge(runs, {**found, ramp: found[ramp] + steps[ramp]})
                if 1 - judged.agrees <= _SEARCH_LOSS:
                    tried.append((_price(now, judged), ramp, judged))
        if tried:
            _, ramp, now = min(tried, key=lambda each: each[:2])
            found[ramp] += steps[ramp]
            steps[ramp] *= 2
        elif all(steps[ramp] <= _LEAST_STEP or found[ramp] > 1 for ramp in ramps):
            return found
        else:
            steps = {ramp: max(_LEAST_STEP, step / 2) for ramp, step in steps.items()}


def _price(now: _Judged, then: _Judged) -> float:
    """The agreement that a step costs for the time that it saves; inf for one that saves none."""
    saved = then.saved - now.saved
    return abs(then.agrees - now.agrees) / abs(saved) if saved else float("inf")


def apparate_policy(exits: int, budget: float = 0.01) -> ApparatePolicy:
    """The entry point ``apparate``."""
    return ApparatePolicy(budget)
