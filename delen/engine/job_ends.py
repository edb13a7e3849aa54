"""How jobs end that a lane has run, and those that a decision ends without a run."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from math import inf
from typing import NamedTuple

from delen.core.dispatch import Task
from delen.core.result import Reason
from delen.engine.handovers import Handovers
from delen.engine.job import Job
from delen.engine.jobs import Jobs
from delen.errors import DelenError, Overloaded
from delen.residency.lease import still_loading
from delen.scheduler.core import Scheduler
from delen.scheduler.decision import DispatchDecision


class End(NamedTuple):
    """``job`` ends with the answer that it has, for ``reason``, or by ``problem``."""

    job: Job
    reason: Reason | None
    problem: DelenError | None


def end_of(job: Job, reason: Reason | None, problem: DelenError | None) -> End | None:
    """How ``job`` ends after its segment, for a ``reason`` or by a ``problem``; None if it goes
    on."""
    if problem is not None:
        return End(job, None, problem)
    if job.cancelled:
        return End(job, "cancelled", None)
    if reason is not None:
        return End(job, reason, None)
    problem = job.unavailable
    return None if problem is None else End(job, None, problem)


class JobEnds:
    """Ends jobs, or hands them over. ``lock`` is the executor's."""

    def __init__(
        self,
        lock: threading.RLock,
        scheduler: Scheduler,
        jobs: Jobs,
        handovers: Handovers | None,
    ) -> None:
        self._lock = lock
        self._scheduler = scheduler
        self._jobs = jobs
        self._handovers = handovers

    def send(self, end: End) -> None:
        """The last that a lane does for a job: whoever waits for it is woken, and wants the
        interpreter at once."""
        job, reason, problem = end
        if reason == "suspended" and (way := job.way) is not None and self._handovers is not None:
            self._handovers.begin(job, way)
        elif reason is not None:
            self._jobs.answer(job, reason)
        elif problem is not None:
            self._jobs.end_early(job, "failed", problem)

    def follow(self, decision: DispatchDecision) -> None:
        """End the jobs that ``decision`` ends."""
        for task in decision.overdue:
            self._answer_or_refuse(task, "latency")
        for task in decision.answer:
            self._jobs[task.id].cut_off = True
            self._answer_or_refuse(task, "policy")
        for task in decision.refuse:
            self._refuse(task)

    def _answer_or_refuse(self, task: Task, reason: Reason) -> None:
        """Refused where the answer that the scheduler knows of is on the node before."""
        job = self._jobs[task.id]
        if job.exit >= 0:
            self._jobs.answer(job, reason)
        else:
            self._refuse(task)

    def _refuse(self, task: Task) -> None:
        """Refuse ``task``, which has no answer; one that accepts the best effort gets more time."""
        job = self._jobs[task.id]
        with self._lock:
            now = time.monotonic()
            may_go_on = not job.cancelled and job.unavailable is None
            if job.accepts_best_effort and task.deadline < inf and may_go_on:
                self._scheduler.add(now, replace(task, deadline=inf))
                return
            deadline = now + job.deadline - job.arrived
            wait = self._scheduler.ahead(now, task.priority, task.tenant, deadline)
        waits = job.model.residency.waits()
        if waits is not None and waits[task.segment] > 0:
            self._jobs.fail(job, still_loading(job.model.name, waits[task.segment]))
            return
        self._jobs.fail(
            job, Overloaded("the request could not be started in time", retry_after=wait)
        )
