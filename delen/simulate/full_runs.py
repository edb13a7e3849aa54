"""Full runs of simulated requests, for exit policies that learn."""

from __future__ import annotations

from delen.bundle.calibration import Calibration
from delen.core.result import Reason
from delen.profile.cost_model import CostModel
from delen.scheduler.exit_guard import guarded_learning
from policies.exit.learning import FullRun, LearningPolicy


class FullRuns:
    """What ``policy`` sees of requests about samples of ``table``, as in the engine: all that reach
    the exit ``deepest``, and as audits the part ``fraction`` of those that it ends before. Audits
    take no time here, and are left out where the device is busy.
    """

    def __init__(
        self,
        policy: LearningPolicy,
        table: Calibration,
        deepest: int,
        costs: CostModel,
        fraction: float,
    ) -> None:
        self._policy = policy
        exits = deepest + 1
        self._deepest = deepest
        self._costs = costs
        self._confidences: list[list[float]] = table.confidence[:, :exits].tolist()
        answers = table.predictions[:, :exits]
        self._agrees: list[list[bool]] = (answers == answers[:, -1:]).tolist()
        self._fraction = fraction
        self._stops = self._stops_audited = 0

    def ended(self, sample: int, exit: int, reason: Reason, is_idle: bool) -> BaseException | None:
        """A request about ``sample`` ended at ``exit`` for ``reason``; the error if learning from
        it fails."""
        weight = 1
        if exit < self._deepest:
            weight = self._audit(is_idle) if reason in ("confident", "policy") else 0
        if not weight:
            return None
        typical, exits = self._costs.typical, range(self._deepest + 1)
        seconds = [typical(0, each, 1) for each in exits]
        run = FullRun(self._confidences[sample], self._agrees[sample], seconds, weight)
        return guarded_learning(self._policy, run)

    def _audit(self, is_idle: bool) -> int:
        before = int(self._stops * self._fraction)
        self._stops += 1
        if not is_idle or int(self._stops * self._fraction) == before:
            return 0
        weight, self._stops_audited = self._stops - self._stops_audited, self._stops
        return weight
