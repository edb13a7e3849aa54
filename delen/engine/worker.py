"""The thread that owns the device: it does what the scheduler says, and answers jobs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf

from delen.dispatch import Manners, Task
from delen.energy import Work
from delen.engine.answer import terms_of, write_result
from delen.engine.audit import Audit, Audits
from delen.engine.desk import EnergyDesk
from delen.engine.job import Job
from delen.engine.judge import Judge
from delen.engine.model import Model
from delen.engine.observer import Observer
from delen.engine.segments import Segments
from delen.errors import BackendError, DelenError, Draining, ModelLoading, Overloaded
from delen.result import Reason, Result
from delen.scheduler.core import Orders, Scheduler
from delen.scheduler.lanes import Batch

log = logging.getLogger("delen.engine")

_LONGEST_WAIT = 3600.0
"""Seconds after which the scheduler is asked again, whatever it said; locks take no infinity."""


def _cancelled() -> Draining:
    return Draining("cancelled before its first exit", retry_after=1.0)


class Worker:
    """Runs jobs to their answers, one batch of one segment at a time.

    A job always ends: with the best answer it has, or, where it has none, with an error. Some
    early answers are audited: once they are out, and while nothing else waits, they are run on
    to the deepest exit. Nobody waits for that, but for the segment that runs.
    """

    def __init__(
        self, observer: Observer, threads: int, scheduler: Scheduler, desk: EnergyDesk
    ) -> None:
        self._observer = observer
        self._desk = desk
        self._scheduler = scheduler
        self._segments = Segments(desk, threads)
        self._judge = Judge(observer)
        self._jobs: dict[int, Job] = {}
        self._models: set[str] = set()
        self._audits = Audits()
        self._audited_until = 0.0
        self._failures = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="delen-worker", daemon=True)
        self._thread.start()

    @property
    def manners(self) -> Manners:
        """Of the dispatch policy in force."""
        return self._scheduler.manners

    def add_model(self, model: Model) -> None:
        with self._changed:
            self._models.add(model.name)
            self._scheduler.learn_model(model.name, model.figures)

    def remove_model(self, name: str) -> int:
        """Take no more jobs of model ``name``, unless some are queued or running: how many."""
        with self._changed:
            jobs = self.jobs_of(name)
            if not jobs and name in self._models:
                self._models.remove(name)
                self._scheduler.forget_model(name)
            return jobs

    def change_model(self, change: Callable[[], None]) -> None:
        """Let ``change`` give a model other costs while no decision is made."""
        with self._changed:
            change()

    def seconds_ahead(self, priority: int, tenant: str, deadline: float) -> float:
        """Seconds until a new job with these properties would start; 0 for a dispatch policy that
        does not want to know. Overloaded where too much work of ``tenant`` waits already."""
        with self._changed:
            now = time.monotonic()
            self._scheduler.check_room(now, tenant)
            if not self.manners.admits:
                return 0.0
            ahead = self._scheduler.ahead(now, priority, tenant, deadline)
            return ahead + max(0.0, self._audited_until - now)

    def submit(self, job: Job) -> None:
        """Queue a job; its future gets the answer."""
        with self._changed:
            if self._stopping:
                raise Draining("the engine is closed", retry_after=1.0)
            if job.model.name not in self._models:
                raise ModelLoading(f"model {job.model.name!r} is not loaded", retry_after=1.0)
            job.future.set_running_or_notify_cancel()
            self._jobs[job.id] = job
            self._scheduler.add(time.monotonic(), job.task())
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """End ``job`` at its next segment's end, or now if it waits."""
        with self._changed:
            job.cancelled = True
            if job.id in self._scheduler:
                with self._telling():
                    self._scheduler.remove(time.monotonic(), job.id)
                self._end_early(job, _cancelled())

    def jobs_of(self, model: str) -> int:
        """How many jobs of ``model`` are queued or running."""
        with self._changed:
            return sum(job.model.name == model for job in self._jobs.values())

    def drain(self, timeout: float) -> bool:
        """Wait until no job is left, at most ``timeout`` seconds; True if none is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs, timeout)

    def close(self) -> None:
        """Refuse what waits, let the running segment end, and stop the thread."""
        with self._changed:
            self._stopping = True
            for job in list(self._jobs.values()):
                self.cancel(job)
            self._changed.notify_all()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._changed:
                orders = self._ask()
                while orders.idle and not self._stopping and not self._may_audit():
                    self._changed.wait(min(_LONGEST_WAIT, max(0.0, orders.wake - time.monotonic())))
                    orders = self._ask()
                if orders.idle and self._stopping:
                    return
                audit = self._next_audit() if orders.idle else None
            if audit is None:
                self._follow(orders)
            else:
                self._run_audit(audit)
            audit = None  # nothing of a model that is unloaded meanwhile may be held here

    def _ask(self) -> Orders:
        began = time.monotonic()
        orders = self._scheduler.next(began)
        self._scheduler.decision_took(time.monotonic() - began)
        for failure in self._scheduler.fetch_report():
            log.error("%s; the default decides where it fails", failure)
        if self._scheduler.failures > self._failures:
            self._observer.dispatch_failed(self._scheduler.failures - self._failures)
            self._failures = self._scheduler.failures
        return orders

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What is done inside tells the dispatch policy of an end, which must not take long."""
        began = time.monotonic()
        yield
        self._scheduler.telling_took(time.monotonic() - began)

    def _follow(self, orders: Orders) -> None:
        for task in orders.late:
            self._answer(self._jobs[task.id], "latency")
        for task in orders.answer:
            job = self._jobs[task.id]
            job.cut_off = True
            self._answer(job, "policy")
        for task in orders.refuse:
            self._give_up(task)
        if orders.run is not None:
            self._run(orders.run)

    def _run(self, batch: Batch) -> None:
        jobs = [self._jobs[task.id] for task in batch.tasks]
        work: Work | None = None
        failure: BackendError | None = None
        reasons: list[Reason | None] = [None] * len(jobs)
        try:
            work = self._segments.run(jobs)
            reasons = [self._reason_to_stop(job, len(jobs), work.ended) for job in jobs]
        except Exception as error:
            log.exception("segment %d of %s failed", batch.key.segment, batch.key.model)
            failure = BackendError(f"the engine failed in segment {batch.key.segment}: {error}")
        now = time.monotonic()
        with self._changed, self._telling():
            self._scheduler.ran(now, batch, now - batch.began)
        for task, job, reason in zip(batch.tasks, jobs, reasons, strict=True):
            with self._changed, self._telling():
                if failure is None and job.cancelled:
                    reason = "cancelled"
                if failure is None and reason is None:
                    self._scheduler.resume(now, task, job.confidence, job.joules_left)
                    continue
                self._scheduler.end(now, task)
            if reason is not None:
                self._answer(job, reason)
            elif failure is not None:
                self._end_early(job, failure)
        if work is not None:
            self._observer.ran(work)

    def _reason_to_stop(self, job: Job, batch: int, now: float) -> Reason | None:
        if self.manners.plans:
            return self._judge.reason_to_stop(job, batch, now)
        return "final" if job.exit == job.plan.exit else None

    def _give_up(self, task: Task) -> None:
        """Refuse ``task``, which has no answer; one that takes the best effort gets more time."""
        job = self._jobs[task.id]
        with self._changed:
            now = time.monotonic()
            if job.takes_best_effort and task.deadline < inf and not job.cancelled:
                self._scheduler.add(now, replace(task, deadline=inf))
                return
            deadline = now + job.deadline - job.arrived
            wait = self._scheduler.ahead(now, task.priority, task.tenant, deadline)
        self._fail(job, Overloaded("other work left no time for it", retry_after=wait))

    def _may_audit(self) -> bool:
        return len(self._audits) > 0 and len(self._scheduler) == 0

    def _next_audit(self) -> Audit:
        audit = self._audits.next()
        takes = audit.model.costs.typical(audit.segment, audit.segment, 1)
        self._audited_until = time.monotonic() + takes
        return audit

    def _run_audit(self, audit: Audit) -> None:
        segment, model = audit.segment, audit.model
        try:
            work, agrees = self._segments.run_audit(audit)
        except Exception:
            log.exception("segment %d of %s failed in an audit", segment, model.name)
            return
        finally:
            self._audited_until = 0.0
        self._observer.ran(work)
        if agrees is None:
            with self._changed:
                self._audits.put_back(audit)
            return
        model.watch.audited(agrees, audit.promised)
        self._observer.audited(model.name, agrees)

    def _end_early(self, job: Job, error: DelenError) -> None:
        """End ``job`` with its best answer so far, with ``error`` only where it has none."""
        if job.exit >= 0:
            self._answer(job, "cancelled")
        else:
            self._fail(job, error)

    def _answer(self, job: Job, reason: Reason) -> None:
        result, features = write_result(job, reason, time.monotonic()), job.features
        job.model.watch.remember(job.request_id, result.index, terms_of(job, reason))
        self._forget(job, result)
        job.future.set_result(result)
        self._observer.answered(result)
        audit = self._audits.of(job, reason, features)
        if audit is not None:
            with self._changed:
                self._audits.add(audit)

    def _fail(self, job: Job, error: DelenError) -> None:
        self._forget(job, None)
        job.future.set_exception(error)

    def _forget(self, job: Job, result: Result | None) -> None:
        job.features = None
        self._desk.ended(job.share, job.reserved, job.energy, result)
        with self._changed:
            self._jobs.pop(job.id, None)
            if not self._jobs:
                self._changed.notify_all()
