"""Plans of a job of which another node does a part, at one input size."""

from __future__ import annotations

from collections.abc import Sequence

from delen.core.bounds import Bounds
from delen.core.fleet_terms import NO_TERMS, FleetTerms
from delen.core.plan import OperatingPoint, Plan
from delen.profile.cost_model import CostModel
from delen.scheduler.conditions import AT_REST, Conditions
from delen.scheduler.plan_cache import Plans, PlanSource
from policies.plan.handover import Start, plan_from, plan_until
from policies.plan.planner import Planner


class _HandoverPlans(PlanSource):
    def __init__(self, planner: Planner, costs: CostModel, own: Plans) -> None:
        self._planner = planner
        self._costs = costs
        self._own = own

    def prepare(self, bounds: Bounds, terms: FleetTerms = NO_TERMS) -> None:
        self._own.prepare(bounds, terms)

    def points(self) -> tuple[OperatingPoint, ...]:
        return self._own.points()


class PlansUntil(_HandoverPlans):
    """Of a job that ends at exit ``last``, for another node to go on."""

    def __init__(self, planner: Planner, costs: CostModel, own: Plans, last: int) -> None:
        super().__init__(planner, costs, own)
        self._last = last

    def plan(self, bounds: Bounds, at: Conditions = AT_REST) -> Plan:
        """As ``policies.plan.handover.plan_until``: its depth is given, whatever energy costs."""
        return plan_until(
            self._planner,
            self._costs,
            bounds,
            self._last,
            at.delay,
            at.guaranteed,
            at.since,
            at.terms,
            self._own.lowest(),
        )

    def unplanned(self, waits: Sequence[float] | None = None, terms: FleetTerms = NO_TERMS) -> Plan:
        plan = self._own.unplanned(waits, terms)
        return plan._replace(exit=min(plan.exit, self._last))


class PlansFrom(_HandoverPlans):
    """Of a job that begins after ``start``."""

    def __init__(self, planner: Planner, costs: CostModel, own: Plans, start: Start) -> None:
        super().__init__(planner, costs, own)
        self._start = start

    def plan(self, bounds: Bounds, at: Conditions = AT_REST) -> Plan:
        """As ``policies.plan.handover.plan_from``."""
        return plan_from(
            self._planner,
            self._costs,
            bounds,
            self._start,
            at.delay,
            at.guaranteed,
            at.price,
            at.since,
            at.terms,
            self._own.lowest(),
        )

    def unplanned(self, waits: Sequence[float] | None = None, terms: FleetTerms = NO_TERMS) -> Plan:
        plan = self._own.unplanned(waits, terms)
        return plan._replace(exit=max(plan.exit, self._start.exit + 1))
