"""A request's admission: its plan, its energy and its place in the queue, decided in one step."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from delen.core.failures import FailureCounter
from delen.core.plan import Plan
from delen.engine.batch_feed import BatchFeed
from delen.engine.directives import Directives
from delen.engine.energy_admission import EnergyAdmission
from delen.engine.executor import Executor
from delen.engine.job import Job
from delen.errors import ModelLoading
from delen.residency.lease import ALWAYS_RESIDENT
from delen.scheduler.conditions import Conditions
from delen.scheduler.core import Scheduler

log = logging.getLogger("delen.engine")

_LONGEST_WAIT = 10.0
"""Seconds after its arrival for which a request without a deadline waits while a segment that it
needs leaves memory."""


_MOST_CHARGES = 10_000


class _Leaving(Exception):
    """A segment that the plan needs is about to leave memory."""


class Admission:
    """Admits jobs to ``executor``, which runs what ``scheduler`` says, on the terms of the
    ``directives`` in force."""

    def __init__(
        self,
        executor: Executor,
        scheduler: Scheduler,
        energy: EnergyAdmission,
        directives: Directives,
    ) -> None:
        self._executor = executor
        self._scheduler = scheduler
        self._energy = energy
        self._directives = directives
        self._failures = FailureCounter("batch", log)
        self._charges: deque[tuple[str, float]] = deque(maxlen=_MOST_CHARGES)

    def charge(self, tenant: str, seconds: float) -> None:
        """``tenant`` has used ``seconds`` of a processor beside its requests. It counts from the
        next request on: whoever says it does not wait for a lock."""
        self._charges.append((tenant, seconds))

    def knows(self, tenant: str) -> bool:
        return self._scheduler.shares.knows(tenant)

    def admit(
        self, lead: Job, count: int, others: Callable[[], Sequence[Job]], waited: float
    ) -> list[Job]:
        """Plan one request of ``count`` samples and queue its ``lead`` job; the ``others`` are made
        then, and queued as room frees. Raises why all are refused. The request ``waited`` so many
        seconds for others since it arrived, which count as their work does.

        Each request is checked against all that were admitted before it: the executor's lock is
        held from the first check to the queue. It is released only while a segment that the request
        needs is about to leave memory; after that everything is decided anew.
        """
        model = lead.model
        terms = self._directives.terms(lead.options.tenant)
        (lead.plans or model.plans).prepare(lead.bounds, terms)
        is_recorded = model.residency is ALWAYS_RESIDENT
        while True:
            lead.model = model
            with self._executor.lock:
                if self._admit(lead, count, waited, is_recorded):
                    return [lead, *(self._feed(lead, others()) if count > 1 else ())]
            is_recorded = True
            give_up = min(lead.arrived + _LONGEST_WAIT, lead.deadline)
            model.residency.lease(lead.plan.exit, give_up - time.monotonic()).end()

    def _admit(self, job: Job, samples: int, waited: float, is_recorded: bool) -> bool:
        """False, and nothing is kept, while a segment that they need is about to leave memory. A
        use that ``is_recorded`` is not recorded again."""
        model, bounds, tenant = job.model, job.bounds, job.options.tenant
        plans, residency, now = job.plans or model.plans, model.residency, time.monotonic()
        model.relax(now)
        while self._charges:
            self._scheduler.shares.charge(now, *self._charges.popleft())
        seconds = self._scheduler.admit(now, tenant, job.options.priority, job.deadline)
        terms = self._directives.terms(tenant)
        at = Conditions(
            spent=now - job.arrived - waited,
            ahead=waited + seconds,
            waiting=waited + self._scheduler.waiting_seconds,
            guaranteed=model.monitor.holds,
            price=self._energy.price(tenant) + terms.per_joule,
            waits=residency.waits(),
            terms=terms,
        )

        def plan_at(price: float) -> Plan:
            if not self._scheduler.capabilities.plans:
                return plans.unplanned(at.waits, terms)
            priced = at if price == at.price else at._replace(price=price)
            if samples == 1:
                return plans.admit(bounds, priced, job.accepts_best_effort)
            return model.batch_plans.admit(bounds, samples, job.accepts_best_effort, priced)

        def lease_at(price: float) -> Plan:
            job.lease.end()
            job.plan = plan_at(price)
            if model.smaller:
                job.model = model.at(job.plan.size)
            try:
                job.lease = residency.lease(job.plan.exit, 0.0)
                job.lease.passed(job.segment - 1)
            except ModelLoading as error:  # if it is unloaded, a longer wait will say so
                raise _Leaving from error
            return job.plan

        if not is_recorded:
            unhurried = Conditions(guaranteed=at.guaranteed, price=at.price, terms=terms)
            use = plans.plan(bounds, unhurried).exit
            for _ in range(samples):
                residency.record_use(use)
        try:
            job.plan, job.reserved = self._energy.admit(
                tenant, lease_at(at.price), lease_at, samples
            )
        except _Leaving:
            return False
        except BaseException:
            job.lease.end()
            raise
        try:
            self._executor.submit(job, now)
        except BaseException:
            job.lease.end()
            for _ in range(samples):
                self._energy.ended(job.share, job.reserved, 0.0, None)
            raise
        if job.plan.limited_by == "fleet":
            self._directives.limited += samples
        return True

    def _feed(self, lead: Job, others: Sequence[Job]) -> Sequence[Job]:
        """Queue the ``others`` of an admitted batch as there is room."""
        for job in others:
            job.model, job.plan, job.reserved = lead.model, lead.plan, lead.reserved
        feed = BatchFeed(lead, others, self._executor, self._scheduler, self._failures)
        feed.start()
        return others
