"""The samples of an admitted batch on their way into the queue, a few at a time."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from math import inf

from delen.core.failures import FailureCounter
from delen.core.plan import Plan
from delen.core.result import Result
from delen.engine.executor import Executor
from delen.engine.job import Job
from delen.errors import BackendError, DelenError
from delen.scheduler.conditions import Conditions
from delen.scheduler.core import Scheduler

log = logging.getLogger("delen.engine")

_FULL_BATCHES = 2
"""So many full batches a lane are in the queue at once: one runs, and the next one waits."""

_ROOM = 0.5
"""The part of what its tenant may have waiting that a batch fills; the rest is for others."""


class BatchFeed:
    """Queues the jobs of one batch as room frees: whenever one of them ends, others may follow.

    ``lead`` is queued already. At least one is queued or runs until all have ended. A later one is
    planned with the time that is left, no deeper than the first: for that plan joules are reserved,
    and the segments stay in memory. Once one fails, the others end with its error unless they have
    an answer. Everything happens under the executor's lock.
    """

    def __init__(
        self,
        lead: Job,
        others: Sequence[Job],
        executor: Executor,
        scheduler: Scheduler,
        failures: FailureCounter,
    ) -> None:
        self._id, self._plan = lead.id, lead.plan
        self._executor = executor
        self._scheduler = scheduler
        self._failures = failures
        self._window = _FULL_BATCHES * scheduler.lanes * lead.model.view.max_batch
        self._queued = {lead.id: lead}
        self._held = deque(others)
        self._is_feeding = False
        self._lease = lead.model.residency.lease(lead.plan.exit, 0.0)

    def start(self) -> None:
        """Count all as under way, and queue as many as there is room for."""
        self._executor.hold(self._held)
        for job in (*self._queued.values(), *self._held):
            job.future.add_done_callback(partial(self._ended, job.id))
        self._feed()

    def _feed(self) -> None:
        """Queue as many as there is room for."""
        if self._is_feeding:  # one that fails at once has ended
            return
        self._is_feeding = True
        try:
            self._queue_more()
        finally:
            self._is_feeding = False

    def _queue_more(self) -> None:
        plan: Plan | None = None
        while self._held and self._has_room(self._held[0].options.tenant):
            job = self._held.popleft()
            try:
                plan = plan or self._plan_later(job)
                self._queue(job, plan)
            except DelenError as error:
                self._executor.cancel(job, error)
            except Exception as error:
                self._failures.failed(error, "a batch could not go on")
                message = f"the engine failed: {type(error).__name__}; see its log"
                self._executor.cancel(job, BackendError(message))
        if not self._held:
            self._scheduler.expect_no_more(self._id)
            self._lease.end()

    def _has_room(self, tenant: str) -> bool:
        if not self._queued:
            return True
        return len(self._queued) < self._window and self._scheduler.has_room(tenant, _ROOM)

    def _plan_later(self, job: Job) -> Plan:
        """The plan of all jobs that are queued now."""
        if not self._scheduler.capabilities.plans:
            return self._plan
        model, options, now = job.model, job.options, time.monotonic()
        model.costs.relax(now)
        ahead = self._scheduler.wait(now, options.priority, options.tenant, job.deadline)
        waits = list(model.residency.waits() or [0.0] * model.exits)
        last = self._plan.exit
        waits[last + 1 :] = [inf] * (model.exits - last - 1)
        holds, price, terms = model.monitor.holds, self._plan.price, self._plan.terms
        at = Conditions(now - job.arrived, ahead, ahead, holds, price, waits, terms)
        return model.own_batches.later(
            job.bounds,
            len(self._held) + 1,
            len(self._queued),
            job.accepts_best_effort,
            at,
        )

    def _queue(self, job: Job, plan: Plan) -> None:
        job.plan, job.lease = plan, job.model.residency.lease(plan.exit, 0.0)
        task = self._executor.submit(job, time.monotonic())
        self._queued[job.id] = job
        if self._held:
            self._scheduler.expect(self._id, task, len(self._held))

    def _ended(self, id: int, future: Future[Result]) -> None:
        with self._executor.lock:
            self._queued.pop(id, None)
            error = future.exception()
            if isinstance(error, DelenError):
                self._cancel_all(error)
            self._feed()

    def _cancel_all(self, error: DelenError) -> None:
        others = [*self._held, *self._queued.values()]
        self._held.clear()
        self._queued.clear()  # so that the end of each of them does not end the rest again
        for job in others:
            self._executor.cancel(job, error)
