"""What a lane does: it asks the scheduler, runs a batch, and ends the jobs that are done."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import NamedTuple, TypeAlias

from delen.core.dispatch import Key
from delen.core.failures import FailureCounter
from delen.core.result import Reason
from delen.core.work import Work
from delen.engine.audit import Audit, Audits
from delen.engine.exit_policy import ExitDecider
from delen.engine.health import EngineHealth
from delen.engine.hung_batches import HungBatches
from delen.engine.informing import InformingPolicy
from delen.engine.job import Job
from delen.engine.job_ends import End, JobEnds, end_of
from delen.engine.jobs import Jobs
from delen.engine.lane_threads import LaneThreads
from delen.engine.model import Model
from delen.engine.observer import Observer
from delen.engine.runner import BatchRun, SegmentRunner
from delen.engine.segment_failures import SegmentFailures
from delen.errors import BackendError
from delen.scheduler.core import Scheduler
from delen.scheduler.decision import DispatchDecision
from delen.scheduler.lanes import Batch

log = logging.getLogger("delen.engine")


class _AuditRun(NamedTuple):
    audit: Audit
    batch: Batch


LaneWork: TypeAlias = DispatchDecision | _AuditRun


class LaneWorker:
    """Does the work of all lanes, on ``threads``, until one of them died and it is ``broken``.

    ``lock`` is the executor's, which guards the scheduler and the jobs; ``models`` are those that
    it serves. ``died`` is called where a thread dies.
    """

    def __init__(
        self,
        lock: threading.RLock,
        scheduler: Scheduler,
        jobs: Jobs,
        health: EngineHealth,
        observer: Observer,
        runner: SegmentRunner,
        exits: ExitDecider,
        audits: Audits,
        ends: JobEnds,
        models: Mapping[str, Model],
        died: Callable[[int, BaseException], None],
    ) -> None:
        self.broken: BackendError | None = None
        self._lock = lock
        self._scheduler = scheduler
        self._jobs = jobs
        self._health = health
        self._observer = observer
        self._runner = runner
        self._exits = exits
        self._audits = audits
        self._ends = ends
        self._models = models
        self.informing = InformingPolicy(scheduler, health)
        self.hung = HungBatches(scheduler, self.informing, jobs, health)
        self._left = self.hung.left
        self._segment_failures = SegmentFailures(health, observer)
        self._dispatch_failures = FailureCounter("dispatch_policy", log)
        self.threads: LaneThreads[LaneWork] = LaneThreads(
            scheduler.lanes, lock, self._find_work, self._do, died
        )

    def _find_work(self) -> tuple[LaneWork | None, float]:
        if self.broken is not None:
            return None, inf
        if len(self._scheduler):
            decision = self._decide()
            if decision.idle:
                return None, decision.wake
            if len(self._scheduler):
                self.threads.wake()  # an idle lane looks after what waits on
            return decision, decision.wake
        self._report_dispatch_failures()
        return self._find_audit(), inf

    def _find_audit(self) -> _AuditRun | None:
        """An audit to run while nothing else waits or runs."""
        if not len(self._audits) or self.threads.stopping or self._scheduler.busy:
            return None
        self._audits.keep_only(self._models)  # some may have come after their model was removed
        if not len(self._audits):
            return None
        audit = self._audits.next()
        key = Key(audit.model.variant, audit.segment)
        batch = self._scheduler.start_own(time.monotonic(), key, audit.model.view)
        return _AuditRun(audit, batch)

    def _decide(self) -> DispatchDecision:
        began = time.monotonic()
        self._health.policy_called(began)
        decision = self._scheduler.next(began)
        self._health.policy_returned()
        self._scheduler.decision_took(time.monotonic() - began)
        self._report_dispatch_failures()
        return decision

    def _report_dispatch_failures(self) -> None:
        if (failed := self._scheduler.failures - self._dispatch_failures.count) > 0:
            for failure in self._scheduler.fetch_report():
                log.error("%s; the default decides where it fails", failure)
            self._observer.dispatch_failed(failed)
            self._dispatch_failures.add(failed)

    def _do(self, work: LaneWork, lane: int) -> LaneWork | None:
        """Do ``work``; what is to be done next, where that is decided already."""
        if isinstance(work, DispatchDecision):
            return self._follow(work, lane)
        self._run_audit(work.audit, work.batch, lane)
        return None

    def _follow(self, decision: DispatchDecision, lane: int) -> LaneWork | None:
        try:
            self._ends.follow(decision)
            return None if decision.run is None else self._run(decision.run, lane)
        except Exception as error:
            self._abandon(decision, error)
            raise

    def _abandon(self, decision: DispatchDecision, error: Exception) -> None:
        """Free the lane of ``decision``, and end its jobs that neither ended nor wait again."""
        failure = BackendError(f"the engine failed: {type(error).__name__}; see its log")
        run = () if decision.run is None else decision.run.tasks
        if decision.run is not None:
            try:
                with self._lock, self.informing:
                    self._scheduler.abandon(time.monotonic(), decision.run)
            except Exception as another:
                self._dispatch_failures.failed(another, "a batch that failed cannot be forgotten")
        for task in (*decision.overdue, *decision.answer, *decision.refuse, *run):
            with self._lock:
                job = None if task.id in self._scheduler else self._jobs.get(task.id)
            if job is not None:
                self._jobs.end_early(job, "failed", failure)

    def _run(self, batch: Batch, lane: int) -> LaneWork | None:
        """Run ``batch`` and send the answers that it brings. Where it brings none, what comes next
        on this lane is decided with its end."""
        if len(batch.tasks) == 1:
            return self._run_alone(batch, self._jobs[batch.tasks[0].id], lane)
        jobs = [self._jobs[task.id] for task in batch.tasks]
        costs = jobs[0].model.costs
        profile = costs.profile
        self._health.batch_began(lane, batch)
        reasons: list[Reason | None] = [None] * len(jobs)
        try:
            ran = self._runner.run(jobs, lane)
            now, size = time.monotonic(), len(jobs)
            reasons = [self._reason_to_stop(job, size, now) for job in jobs]
        except Exception as error:
            ran = BatchRun(errors={job.id: error for job in jobs})
        self._health.batch_ended(lane, batch)
        problems = self._segment_failures.of(batch.key, jobs, ran.errors)
        work = ran.works[0] if len(ran.works) == 1 and not ran.errors else None
        ended: list[End] = []
        following: LaneWork | None = None
        with self._lock:
            if self._left and self.hung.came_back(batch):
                return None
            with self.informing as now:
                self._end_batch(now, batch, work if costs.profile is profile else None)
                for task, job, reason in zip(batch.tasks, jobs, reasons, strict=True):
                    end = end_of(job, reason, problems.get(job.id))
                    if end is None:
                        self._scheduler.resume(now, task, job.confidence, job.joules_left)
                    else:
                        self._scheduler.end(now, task)
                        ended.append(end)
            if not ended:
                following, _ = self._find_work()
            elif len(self._scheduler):
                self.threads.wake()  # this lane has answers to write first
        for each in ran.works:
            self._observer.ran(each)
        for end in ended:
            self._ends.send(end)
        return following

    def _run_alone(self, batch: Batch, job: Job, lane: int) -> LaneWork | None:
        """As ``_run``, of a batch of ``job`` alone: most batches are where few clients ask, and
        these steps are taken between any two segments. While nothing else waits the job goes
        straight on to its next one."""
        (task,) = batch.tasks
        costs, health = job.model.costs, self._health
        goes_on, following = True, None
        while goes_on:
            profile, work, reason = costs.profile, None, None
            errors: dict[int, Exception] = {}
            health.batch_began(lane, batch)
            try:
                work = self._runner.run_alone(job, lane)
                reason = self._reason_to_stop(job, 1, time.monotonic())
            except Exception as error:
                work, errors = None, {job.id: error}
            health.batch_ended(lane, batch)
            problems = self._segment_failures.of(batch.key, (job,), errors)
            with self._lock:
                if self._left and self.hung.came_back(batch):
                    return None
                with self.informing as now:
                    end = end_of(job, reason, problems.get(job.id))
                    learnt = work if costs.profile is profile else None
                    if end is None:
                        seconds, joules = _measured(learnt)
                        goes_on = self._scheduler.go_on(
                            now, batch, seconds, joules, job.confidence, job.joules_left
                        )
                    else:
                        goes_on = False
                        self._end_batch(now, batch, learnt)
                        self._scheduler.end(now, task)
                if end is not None:
                    if len(self._scheduler):
                        self.threads.wake()
                elif not goes_on:
                    following, _ = self._find_work()
            if work is not None:
                self._observer.ran(work)
            if end is not None:
                self._ends.send(end)
        return following

    def _end_batch(self, now: float, batch: Batch, work: Work | None) -> None:
        """Free the lane of ``batch``. There is no ``work`` to learn from if it failed, or if it ran
        in the power mode before."""
        seconds, joules = _measured(work)
        self._scheduler.ran(now, batch, now - batch.began, seconds, joules)

    def _reason_to_stop(self, job: Job, batch: int, now: float) -> Reason | None:
        if self._scheduler.capabilities.plans:
            reason = self._exits.reason_to_stop(job, batch, now)
        else:
            reason = "final" if job.exit == job.plan.exit else None
        if job.suspend_at is not None and reason in ("planned_exit", "final"):
            threshold = job.plan.threshold
            is_confident = threshold is not None and job.confidence >= threshold
            return "confident" if is_confident else "suspended"
        return reason

    def _run_audit(self, audit: Audit, batch: Batch, lane: int) -> None:
        costs = audit.model.costs
        profile = costs.profile
        self._health.batch_began(lane, batch)
        work = self._audits.run(audit, lane)
        self._health.batch_ended(lane, batch)
        try:
            with self._lock, self.informing as now:
                if self._left and self.hung.came_back(batch):
                    return
                self._end_batch(now, batch, work if costs.profile is profile else None)
        except Exception:
            with self._lock, self.informing:
                self._scheduler.abandon(time.monotonic(), batch)
            raise
        if work is not None:
            self._observer.ran(work)
            self._audits.go_on(audit)


def _measured(work: Work | None) -> tuple[float | None, float | None]:
    """The seconds and joules that can be learnt from ``work``."""
    return (None, None) if work is None else (work.ended - work.began, work.joules)
