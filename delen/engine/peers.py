"""Other nodes that could go on with jobs whose bounds cannot be kept here, and plans with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from delen.core.bounds import Bounds
from delen.core.fleet_terms import NO_TERMS, FleetTerms
from delen.core.handover import Way
from delen.core.plan import OperatingPoint, Plan
from delen.core.result import Result
from delen.engine.model import Model
from delen.errors import InfeasibleBound, Overloaded
from delen.scheduler.conditions import AT_REST, Conditions
from delen.scheduler.handover_plans import PlansUntil
from delen.scheduler.plan_cache import PlanSource


class Peers(Protocol):
    """Other nodes. Many threads call it."""

    def find(
        self, model: Model, bounds: Bounds, delay: float, waits: Sequence[float] | None
    ) -> Way | None:
        """How one of them could finish a job of ``model`` within ``bounds`` that begins in
        ``delay`` seconds here; None where none can. It is quick, and asks nobody."""

    def go_on(self, peer: str, begun: Result, priority: int | None, seconds: float) -> Result:
        """The answer of ``peer`` to what was ``begun`` here. Raises DelenError where there is none
        within ``seconds``."""


class PlansWithPeers(PlanSource):
    """Plans of one job of ``model``, or where its bounds cannot be kept here, of its part up to the
    exit after which one of ``peers`` can keep them: then there is a ``way``. ``plans`` are those of
    all its sizes."""

    def __init__(self, model: Model, plans: PlanSource, peers: Peers) -> None:
        self._model = model
        self._plans = plans
        self._peers = peers

    def prepare(self, bounds: Bounds, terms: FleetTerms = NO_TERMS) -> None:
        self._plans.prepare(bounds, terms)

    def plan(self, bounds: Bounds, at: Conditions = AT_REST) -> Plan:
        """One that ends here."""
        return self._plans.plan(bounds, at)

    def unplanned(self, waits: Sequence[float] | None = None, terms: FleetTerms = NO_TERMS) -> Plan:
        return self._plans.unplanned(waits, terms)

    def points(self) -> tuple[OperatingPoint, ...]:
        return self._plans.points()

    def admit(self, bounds: Bounds, at: Conditions = AT_REST, best_effort: bool = False) -> Plan:
        self.way = None
        try:
            return self._plans.admit(bounds, at)
        except (InfeasibleBound, Overloaded):
            plan = self._find(bounds, at) if at.guaranteed else None
            if plan is not None:
                return plan
            if not best_effort:
                raise
        return self._plans.admit(bounds, at, best_effort=True)

    def _find(self, bounds: Bounds, at: Conditions) -> Plan | None:
        """The plan of the part here, and the way on; None where no peer can keep the bounds."""
        model = self._model
        way = self._peers.find(model, bounds, at.delay, at.since)
        if way is None:
            return None
        part = PlansUntil(model.planner, model.costs, model.own_plans, way.exit)
        plan = part.plan(bounds, at)
        if plan.infeasible is not None or plan.exit != way.exit:
            return None
        self.way = way
        energy = None if plan.energy is None or way.joules is None else plan.energy + way.joules
        return plan._replace(latency=plan.latency + way.seconds, energy=energy)
