"""A request's admission: its plan, its energy and its place in the queue, decided in one step."""

from __future__ import annotations

import time

from delen.core.plan import Plan
from delen.engine.energy_admission import EnergyAdmission
from delen.engine.executor import Executor
from delen.engine.job import Job
from delen.errors import ModelLoading
from delen.residency.lease import ALWAYS_RESIDENT
from delen.scheduler.core import Scheduler

_LONGEST_WAIT = 10.0
"""Seconds after its arrival for which a request without a deadline waits while a segment that it
needs leaves memory."""


class _Leaving(Exception):
    """A segment that the plan needs is about to leave memory."""


class Admission:
    """Admits jobs to ``executor``, which runs what ``scheduler`` says."""

    def __init__(self, executor: Executor, scheduler: Scheduler, energy: EnergyAdmission) -> None:
        self._executor = executor
        self._scheduler = scheduler
        self._energy = energy

    def admit(self, job: Job, waited: float) -> None:
        """Plan ``job`` and queue it, or raise why it is refused. It ``waited`` so many seconds for
        others since it arrived, which counts as their work does.

        Each job is checked against all that were admitted before it: the executor's lock is held
        from the first check to the queue. It is released only while a segment that the job needs
        is about to leave memory; after that everything is decided anew.
        """
        job.model.plans.prepare(job.bounds)
        is_recorded = job.model.residency is ALWAYS_RESIDENT
        while True:
            with self._executor.lock:
                if self._admit(job, waited, is_recorded):
                    return
            is_recorded = True
            give_up = min(job.arrived + _LONGEST_WAIT, job.deadline)
            job.model.residency.lease(job.plan.exit, give_up - time.monotonic()).end()

    def _admit(self, job: Job, waited: float, is_recorded: bool) -> bool:
        """False, and nothing is kept, while a segment that it needs is about to leave memory. A
        use that ``is_recorded`` is not recorded again."""
        model, bounds, tenant = job.model, job.bounds, job.options.tenant
        plans, residency, now = model.plans, model.residency, time.monotonic()
        model.costs.relax(now)
        seconds = self._scheduler.admit(now, tenant, job.options.priority, job.deadline)
        spent, ahead = now - job.arrived - waited, waited + seconds
        price, waits, guaranteed = (
            self._energy.price(tenant),
            residency.waits(),
            model.monitor.holds,
        )

        def plan_at(price: float) -> Plan:
            if not self._scheduler.capabilities.plans:
                return plans.unplanned(waits)
            best_effort = job.accepts_best_effort
            return plans.admit(bounds, spent, ahead, guaranteed, best_effort, price, waits)

        def lease_at(price: float) -> Plan:
            job.lease.end()
            job.plan = plan_at(price)
            try:
                job.lease = residency.lease(job.plan.exit, 0.0)
            except ModelLoading as error:  # if it is unloaded, a longer wait will say so
                raise _Leaving from error
            return job.plan

        if not is_recorded:
            residency.record_use(plans.plan(bounds, 0.0, guaranteed, price).exit)
        try:
            job.plan, job.reserved = self._energy.admit(tenant, lease_at(price), lease_at)
        except _Leaving:
            return False
        except BaseException:
            job.lease.end()
            raise
        try:
            self._executor.submit(job)
        except BaseException:
            job.lease.end()
            self._energy.ended(job.share, job.reserved, 0.0, None)
            raise
        return True
