"""The threads that own the device: they do what the scheduler says, and answer jobs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf

from delen.core.dispatch import Key, PolicyCapabilities, Task
from delen.core.result import Reason
from delen.core.tenant import TenantSettings
from delen.core.work import Work
from delen.engine.audit import Audit, Audits
from delen.engine.energy_admission import EnergyAdmission
from delen.engine.exit_policy import ExitDecider
from delen.engine.job import Job
from delen.engine.jobs import Jobs
from delen.engine.model import Model
from delen.engine.observer import Observer
from delen.engine.runner import SegmentRunner
from delen.errors import BackendError, DelenError, Draining, ModelLoading, Overloaded
from delen.residency.lease import still_loading
from delen.scheduler.core import DispatchDecision, Scheduler
from delen.scheduler.lanes import Batch

log = logging.getLogger("delen.engine")

_LONGEST_WAIT = 3600.0
"""Seconds after which the scheduler is asked again, whatever it said; locks take no infinity."""

_HAND_OVER = 0.0002
"""Seconds in which a lane that rests wakes, decides and begins."""


def _no_answer(job: Job, batch: Batch) -> BackendError | None:
    """What is wrong if ``job`` has no answer of the segment that ran."""
    segment = batch.key.segment
    if job.exit == segment:
        return None
    return BackendError(f"exit {segment} of {batch.key.model} gave no finite numbers for the input")


def _cancelled() -> Draining:
    return Draining("cancelled before its first exit", retry_after=1.0)


class Executor:
    """Runs jobs to their answers, one batch of one segment at a time on each of the scheduler's
    lanes, which have a thread each.

    Some early answers are audited: once they are out, and while nothing else waits or runs, they
    are run on to the deepest exit. Nobody waits for that, but for the segment that runs.
    """

    def __init__(
        self, observer: Observer, threads: int, scheduler: Scheduler, admission: EnergyAdmission
    ) -> None:
        self._observer = observer
        self._scheduler = scheduler
        self._segments = SegmentRunner(admission, threads)
        self._judge = ExitDecider(observer)
        self._models: set[str] = set()
        self._audits = Audits(self._segments, observer)
        self._failures = 0
        self._lock = threading.RLock()
        self._jobs = Jobs(self._lock, observer, admission, self._audits)
        self._work_waits = threading.Condition(self._lock)
        self._resting = 0
        self._stopping = False
        self._threads = [
            threading.Thread(
                target=self._loop, args=(lane,), name=f"delen-lane-{lane}", daemon=True
            )
            for lane in range(scheduler.lanes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def capabilities(self) -> PolicyCapabilities:
        """Of the dispatch policy in force."""
        return self._scheduler.capabilities

    def add_model(self, model: Model) -> None:
        with self._lock:
            self._models.add(model.name)
            self._scheduler.learn_model(model.name, model.figures)

    def remove_model(self, name: str) -> int:
        """Take no more jobs of model ``name``, unless some are queued or running: how many."""
        with self._lock:
            jobs = self._jobs.of(name)
            if not jobs and name in self._models:
                self._models.remove(name)
                self._scheduler.forget_model(name)
            return jobs

    def keep_resident(self, name: str, depth: int) -> None:
        """Only the first ``depth`` segments of model ``name`` are in memory from now on; jobs that
        need others wait for them, as long as their bounds let them."""
        with self._lock:
            self._scheduler.keep_resident(name, depth)
            self._work_waits.notify_all()

    def fail_waiting(self, name: str, error: DelenError) -> None:
        """End the jobs of model ``name`` that wait for a segment which cannot be loaded. Those that
        come to wait for it find it unavailable."""
        with self._lock:
            for task in self._scheduler.parked(name):
                self._scheduler.remove(time.monotonic(), task.id)
                self._jobs.end_early(self._jobs[task.id], error)

    def change_model(self, change: Callable[[], None]) -> None:
        """Let ``change`` give a model other costs while no decision is made."""
        with self._lock:
            change()

    def set_tenant(self, tenant: str, settings: TenantSettings) -> None:
        """From now on requests of ``tenant`` are served as its ``settings`` say."""
        with self._lock:
            self._scheduler.shares.set_weight(tenant, settings.weight)
            self._scheduler.shares.set_priority(tenant, settings.priority)

    def behind(self, tenants: Iterable[str]) -> set[str]:
        """Those of ``tenants`` that have used more than their share."""
        with self._lock:
            return self._scheduler.shares.behind(time.monotonic(), tenants)

    def seconds_ahead(
        self, model: Model, priority: int | None, tenant: str, deadline: float
    ) -> float:
        """Seconds until a new job with these properties would start; 0 for a dispatch policy that
        does not want to know. Overloaded where too much work of ``tenant`` waits already. The costs
        of ``model`` are those of now from here on."""
        with self._lock:
            now = time.monotonic()
            model.costs.relax(now)
            self._scheduler.check_room(now, tenant)
            if not self.capabilities.admits:
                return 0.0
            return self._scheduler.ahead(now, priority, tenant, deadline)

    def backlog_seconds(self) -> float:
        """Seconds until all that waits now is done."""
        with self._lock:
            return self._scheduler.backlog(time.monotonic())

    def submit(self, job: Job) -> None:
        """Queue a job; its future gets the answer."""
        with self._lock:
            if self._stopping:
                raise Draining("the engine is closed", retry_after=1.0)
            if job.model.name not in self._models:
                raise ModelLoading(f"model {job.model.name!r} is not loaded", retry_after=1.0)
            if (error := job.unavailable) is not None:
                raise error
            priority = self._scheduler.shares.priority(job.options.tenant, job.options.priority)
            self._scheduler.add(time.monotonic(), job.task(priority))
            job.future.set_running_or_notify_cancel()
            self._jobs.add(job)
            self._work_waits.notify()

    def hand_over(self) -> None:
        """Leave the interpreter to the lanes if all of them rest, so that one begins what waits
        before the calling thread goes on."""
        if self._resting == len(self._threads):
            with self._lock:
                if self._scheduler.may_begin:
                    self._jobs.wait(_HAND_OVER)

    def cancel(self, job: Job) -> None:
        """End ``job`` at its next segment's end, or now if it waits."""
        with self._lock:
            job.cancelled = True
            if job.id in self._scheduler:
                with self._telling():
                    self._scheduler.remove(time.monotonic(), job.id)
                self._jobs.end_early(job, _cancelled())

    def lanes(self) -> tuple[int, int]:
        """How many batches may run at once, and how many do."""
        with self._lock:
            return self._scheduler.lanes, self._scheduler.busy

    @property
    def rests(self) -> bool:
        """Whether the calling thread is a lane's, and no job is queued or running."""
        return not self._jobs and threading.current_thread() in self._threads

    def jobs_of(self, model: str) -> int:
        """How many jobs of ``model`` are queued or running."""
        return self._jobs.of(model)

    def drain(self, timeout: float) -> bool:
        """Wait until no job is left, at most ``timeout`` seconds; True if none is."""
        return self._jobs.wait_for_none(timeout)

    def close(self) -> None:
        """Refuse what waits, let the running segments end, and stop the threads."""
        with self._lock:
            self._stopping = True
            for job in self._jobs.all():
                self.cancel(job)
            self._work_waits.notify_all()
        for thread in self._threads:
            thread.join()

    def _loop(self, lane: int) -> None:
        while True:
            with self._lock:
                decision = self._ask()
                while decision.idle and not self._stopping and not self._may_audit():
                    wait = min(_LONGEST_WAIT, max(0.0, decision.wake - time.monotonic()))
                    self._resting += 1
                    self._work_waits.wait(wait)
                    self._resting -= 1
                    decision = self._ask()
                if decision.idle and self._stopping:
                    return
                audit = self._start_audit() if decision.idle else None
                if len(self._scheduler):
                    self._work_waits.notify()  # a lane that is idle looks after what waits on
            try:
                if audit is None:
                    self._follow(decision, lane)
                else:
                    self._run_audit(*audit, lane)
            except Exception as error:
                log.exception("lane %d failed; it goes on with what waits", lane)
                self._abandon(decision, error)
            audit = None  # nothing of a model that is unloaded meanwhile may be held here

    def _ask(self) -> DispatchDecision:
        began = time.monotonic()
        decision = self._scheduler.next(began)
        self._scheduler.decision_took(time.monotonic() - began)
        for failure in self._scheduler.fetch_report():
            log.error("%s; the default decides where it fails", failure)
        if self._scheduler.failures > self._failures:
            self._observer.dispatch_failed(self._scheduler.failures - self._failures)
            self._failures = self._scheduler.failures
        return decision

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What is done inside tells the dispatch policy of an end, which must not take long."""
        began = time.monotonic()
        yield
        self._scheduler.reporting_took(time.monotonic() - began)

    def _follow(self, decision: DispatchDecision, lane: int) -> None:
        for task in decision.overdue:
            if task.exit >= 0:
                self._jobs.answer(self._jobs[task.id], "latency")
            else:
                self._give_up(task)
        for task in decision.answer:
            job = self._jobs[task.id]
            job.cut_off = True
            self._jobs.answer(job, "policy")
        for task in decision.refuse:
            self._give_up(task)
        if decision.run is not None:
            self._run(decision.run, lane)

    def _abandon(self, decision: DispatchDecision, error: Exception) -> None:
        """End the jobs of ``decision`` that neither ended nor wait again."""
        failure = BackendError(f"the engine failed: {type(error).__name__}; see its log")
        run = () if decision.run is None else decision.run.tasks
        for task in (*decision.overdue, *decision.answer, *decision.refuse, *run):
            with self._lock:
                job = None if task.id in self._scheduler else self._jobs.get(task.id)
            if job is not None:
                self._jobs.end_anyhow(job, failure)

    def _run(self, batch: Batch, lane: int) -> None:
        jobs = [self._jobs[task.id] for task in batch.tasks]
        costs = jobs[0].model.costs
        profile = costs.profile
        work: Work | None = None
        failure: BackendError | None = None
        reasons: list[Reason | None] = [None] * len(jobs)
        try:
            work = self._segments.run(jobs, lane)
        except Exception as error:
            failure = self._failed(batch, error)
        try:
            if work is not None:
                reasons = [self._reason_to_stop(job, len(jobs)) for job in jobs]
        except Exception as error:
            failure = self._failed(batch, error)
        now = self._tell_end(batch, work if costs.profile is profile else None)
        ended: list[tuple[Job, Reason | None, DelenError | None]] = []
        with self._lock, self._telling():
            for task, job, reason in zip(batch.tasks, jobs, reasons, strict=True):
                problem: DelenError | None = failure or _no_answer(job, batch)
                if problem is not None:
                    reason = None
                elif job.cancelled:
                    reason = "cancelled"
                elif reason is None:
                    problem = job.unavailable
                if problem is None and reason is None:
                    self._scheduler.resume(now, task, job.confidence, job.joules_left)
                else:
                    self._scheduler.end(now, task)
                    ended.append((job, reason, problem))
            if ended and len(self._scheduler):
                self._work_waits.notify()  # this lane has answers to write first
        for job, reason, problem in ended:
            if reason is not None:
                self._jobs.answer(job, reason)
            elif problem is not None:
                self._jobs.end_early(job, problem)
        if work is not None:
            self._observer.ran(work)

    def _tell_end(self, batch: Batch, work: Work | None) -> float:
        """Free the lane of ``batch`` and return when. There is no ``work`` to learn from if it
        failed, or if it ran in the power mode before."""
        now = time.monotonic()
        with self._lock, self._telling():
            if work is None:
                self._scheduler.ran(now, batch, now - batch.began)
            else:
                taken = now - batch.began
                self._scheduler.ran(now, batch, taken, work.seconds, work.joules)
        return now

    def _failed(self, batch: Batch, error: Exception) -> BackendError:
        log.exception("segment %d of %s failed", batch.key.segment, batch.key.model)
        return BackendError(f"the engine failed in segment {batch.key.segment}: {error}")

    def _reason_to_stop(self, job: Job, batch: int) -> Reason | None:
        if self.capabilities.plans:
            return self._judge.reason_to_stop(job, batch, time.monotonic())
        return "final" if job.exit == job.plan.exit else None

    def _give_up(self, task: Task) -> None:
        """Refuse ``task``, which has no answer; one that takes the best effort gets more time."""
        job = self._jobs[task.id]
        with self._lock:
            now = time.monotonic()
            has_time = task.deadline < inf and not job.cancelled and job.unavailable is None
            if job.takes_best_effort and has_time:
                self._scheduler.add(now, replace(task, deadline=inf))
                return
            deadline = now + job.deadline - job.arrived
            wait = self._scheduler.ahead(now, task.priority, task.tenant, deadline)
        waits = job.model.residency.waits()
        if waits is not None and waits[task.segment] > 0:
            self._jobs.fail(job, still_loading(job.model.name, waits[task.segment]))
            return
        self._jobs.fail(job, Overloaded("it could not be started in time", retry_after=wait))

    def _may_audit(self) -> bool:
        scheduler = self._scheduler
        return len(self._audits) > 0 and len(scheduler) == 0 and scheduler.busy == 0

    def _start_audit(self) -> tuple[Audit, Batch]:
        audit = self._audits.next()
        key = Key(audit.model.name, audit.segment)
        return audit, self._scheduler.start_own(time.monotonic(), key, audit.model.figures)

    def _run_audit(self, audit: Audit, batch: Batch, lane: int) -> None:
        costs = audit.model.costs
        profile = costs.profile
        work = self._audits.run(audit, lane)
        self._tell_end(batch, work if costs.profile is profile else None)
        if work is not None:
            self._observer.ran(work)
            self._audits.go_on(audit)
