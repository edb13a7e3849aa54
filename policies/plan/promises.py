"""What a plan promises about answers that end as planned, as rates that can be monitored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from delen.bundle.calibration import THRESHOLDS, Calibration
from delen.core.variant import Size
from policies.plan.risk import betting_bound, upper_bound


@dataclass(frozen=True, slots=True)
class Terms:
    """How an answer was planned: its threshold, deepest exit, floor, and input size."""

    threshold: float | None
    deepest: int
    floor: float | None
    size: Size | None = None


class Promises:
    """The error rates that follow from a calibration table.

    Rates other than floors are upper confidence bounds. They hold together with probability
    1 - ``delta``, for all thresholds and exits at once (a union bound), since thresholds were
    chosen by the same table. Answers that stopped early are compared with the exit ``reference``.
    Where the table has groups, rates are means over them.
    """

    def __init__(self, calibration: Calibration, delta: float, reference: int) -> None:
        self._calibration = calibration
        errors = calibration.exits * (len(THRESHOLDS) + 1)
        disagreements = calibration.exits**2 * len(THRESHOLDS)
        self._delta = delta / (errors + disagreements)
        self.reference = reference
        self._error = lru_cache(maxsize=1024)(self._make_error)
        self._disagreement = lru_cache(maxsize=1024)(self._make_disagreement)

    def error(self, terms: Terms) -> float:
        """The greatest share of wrong answers among those with these terms."""
        if terms.floor is not None:
            return 1 - terms.floor
        return self._error(terms.threshold, terms.deepest)

    def disagreement(self, threshold: float, deepest: int, exit: int) -> float:
        """The greatest share, among answers that stopped early at ``exit``, of those that the
        reference exit would change."""
        return self._disagreement(threshold, deepest, exit)

    def _make_error(self, threshold: float | None, deepest: int) -> float:
        wrong = ~self._calibration.right_answers(threshold, deepest)
        if self._calibration.groups is not None:
            return betting_bound(self._calibration.group_means(wrong), self._delta)
        return upper_bound(int(wrong.sum()), len(wrong), self._delta)

    def _make_disagreement(self, threshold: float, deepest: int, exit: int) -> float:
        table = self._calibration
        here = table.exits_taken(threshold, deepest) == exit
        count = int(here.sum())
        if count == 0:
            return 1.0
        differ = here & (table.predictions[:, exit] != table.predictions[:, self.reference])
        if table.groups is not None:
            return betting_bound(table.group_means(differ), self._delta, table.group_means(here))
        return upper_bound(int(differ.sum()), count, self._delta)
