"""Other nodes that go on with jobs whose bounds cannot be kept here."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from delen.core.bounds import Bounds
from delen.core.failures import FailureCounter
from delen.core.fleet_terms import NO_TERMS, FleetTerms
from delen.core.handover import Way
from delen.core.plan import OperatingPoint, Plan
from delen.core.result import Result
from delen.engine.job import Job
from delen.engine.model import Model
from delen.engine.receipt import write_result
from delen.errors import DaemonUnreachable, InfeasibleBound, Overloaded
from delen.scheduler.handover_plans import PlansUntil
from delen.scheduler.plan_cache import PlanSource

log = logging.getLogger("delen.engine")

_AT_ONCE = 8
"""Jobs that are on other nodes at the same time; further ones wait to be sent."""

_LONGEST = 10.0
"""Seconds for which another node is waited for where the job has no deadline."""

_MARGIN = 0.005
"""Seconds before its deadline at which a job is no longer waited for: its answer here is to be in
time."""


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

    def plan(
        self,
        bounds: Bounds,
        delay: float = 0.0,
        guaranteed: bool = True,
        price: float = 0.0,
        waits: Sequence[float] | None = None,
        terms: FleetTerms = NO_TERMS,
    ) -> Plan:
        """One that ends here."""
        return self._plans.plan(bounds, delay, guaranteed, price, waits, terms)

    def unplanned(self, waits: Sequence[float] | None = None, terms: FleetTerms = NO_TERMS) -> Plan:
        return self._plans.unplanned(waits, terms)

    def points(self) -> tuple[OperatingPoint, ...]:
        return self._plans.points()

    def admit(
        self,
        bounds: Bounds,
        spent: float = 0.0,
        ahead: float = 0.0,
        guaranteed: bool = True,
        best_effort: bool = False,
        price: float = 0.0,
        waits: Sequence[float] | None = None,
        terms: FleetTerms = NO_TERMS,
    ) -> Plan:
        self.way = None
        try:
            return self._plans.admit(bounds, spent, ahead, guaranteed, False, price, waits, terms)
        except (InfeasibleBound, Overloaded):
            plan = self._find(bounds, spent + ahead, waits, terms) if guaranteed else None
            if plan is not None:
                return plan
            if not best_effort:
                raise
        return self._plans.admit(bounds, spent, ahead, guaranteed, True, price, waits, terms)

    def _find(
        self,
        bounds: Bounds,
        delay: float,
        waits: Sequence[float] | None,
        terms: FleetTerms,
    ) -> Plan | None:
        """The plan of the part here, and the way on; None where no peer can keep the bounds."""
        model = self._model
        way = self._peers.find(model, bounds, delay, waits)
        if way is None:
            return None
        part = PlansUntil(model.planner, model.costs, model.own_plans, way.exit)
        plan = part.plan(bounds, delay, True, 0.0, waits, terms)
        if plan.infeasible is not None or plan.exit != way.exit:
            return None
        self.way = way
        energy = None if plan.energy is None or way.joules is None else plan.energy + way.joules
        return plan._replace(latency=plan.latency + way.seconds, energy=energy)


class Handovers:
    """Sends jobs to ``peers``. ``came_back`` is called with what comes back, ``stays`` where
    nothing does, both with the seconds that it took. ``node`` is this one."""

    def __init__(
        self,
        peers: Peers,
        node: str,
        came_back: Callable[[Job, Result, Way, float], None],
        stays: Callable[[Job, Way, float], None],
    ) -> None:
        self._peers = peers
        self._node = node
        self._came_back = came_back
        self._stays = stays
        self.counts: Counter[tuple[str, str]] = Counter()
        """Of jobs by peer and by what became of them: ``answered`` there, or ``stayed`` here."""
        self._failures = FailureCounter("handover", log)
        self._threads = ThreadPoolExecutor(_AT_ONCE, "delen-handover")

    def begin(self, job: Job, way: Way) -> None:
        """Hand ``job`` over, which waits for its next segment."""
        self._threads.submit(self._run, job, way)

    def close(self) -> None:
        """Send no more jobs. Those that are on their way have ended here by now."""
        self._threads.shutdown(wait=False)

    def _run(self, job: Job, way: Way) -> None:
        if job.has_ended:
            return
        sent, result = time.monotonic(), None
        try:
            result = self._ask(job, way, sent)
        except Exception as error:
            self._failures.failed(error, "%s did not go on with a job", way.peer)
        took = time.monotonic() - sent
        self.counts[way.peer, "stayed" if result is None else "answered"] += 1
        try:
            if result is None:
                self._stays(job, way, took)
            else:
                self._came_back(job, result, way, took)
        except Exception as error:
            self._failures.failed(error, "a job that was handed over did not end cleanly")

    def _ask(self, job: Job, way: Way, now: float) -> Result:
        due = job.deadline - job.model.costs.answering() - _MARGIN
        seconds = min(due - now, _LONGEST)
        if seconds <= 0 or job.cancelled:
            raise DaemonUnreachable("nobody waits for the job, or there is no time left")
        begun = write_result(job, "suspended", now, self._node)
        return self._peers.go_on(way.peer, begun, job.options.priority, seconds)
