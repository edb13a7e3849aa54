"""Runs jobs to their answers, as the scheduler says."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf
from typing import NamedTuple, TypeAlias

from delen.core.crash_guard import CrashGuard
from delen.core.dispatch import Key, Task
from delen.core.failures import FailureCounter
from delen.core.result import Reason
from delen.core.tenant import TenantSettings
from delen.core.variant import model_of
from delen.core.work import Work
from delen.engine.audit import Audit, Audits
from delen.engine.energy_admission import EnergyAdmission
from delen.engine.exit_policy import ExitDecider
from delen.engine.handovers import Handovers
from delen.engine.health import SEGMENT_HANGS, EngineHealth, hung
from delen.engine.informing import InformingPolicy
from delen.engine.job import Job
from delen.engine.jobs import Jobs
from delen.engine.lane_threads import LaneThreads
from delen.engine.model import Model
from delen.engine.observer import Observer
from delen.engine.peers import Peers
from delen.engine.runner import BatchRun, SegmentRunner
from delen.engine.segment_failures import SegmentFailures
from delen.errors import BackendError, DelenError, Draining, ModelLoading, Overloaded
from delen.residency.lease import NO_LEASE, Lease, still_loading
from delen.scheduler.core import Scheduler
from delen.scheduler.decision import DispatchDecision
from delen.scheduler.lanes import Batch

log = logging.getLogger("delen.engine")


class Load(NamedTuple):
    """Seconds of work that wait, the share of all lanes that was busy in the last seconds, and how
    many times longer than profiled the slowest model takes."""

    backlog: float
    utilisation: float
    slowdown: float


class _AuditRun(NamedTuple):
    audit: Audit
    batch: Batch


class _End(NamedTuple):
    """``job`` ends with the answer that it has, for ``reason``, or by ``problem``."""

    job: Job
    reason: Reason | None
    problem: DelenError | None


LOCAL = "local"
"""A node that nobody gave a name."""

_LOCK_PATIENCE = 1.0
"""Seconds."""

LaneWork: TypeAlias = DispatchDecision | _AuditRun


class Executor:
    """Runs one batch of one segment at a time on each of the scheduler's lanes.

    ``lock`` guards the scheduler and the jobs. Some early answers are audited: once they are out,
    and while nothing else waits or runs, they are run on to the deepest exit. No job waits for an
    audit, except for the segment that runs.
    """

    def __init__(
        self,
        observer: Observer,
        threads: int,
        scheduler: Scheduler,
        energy: EnergyAdmission,
        node: str = LOCAL,
        peers: Peers | None = None,
        segment_hangs: float = SEGMENT_HANGS,
        guard: CrashGuard | None = None,
    ) -> None:
        self.lock = threading.RLock()
        self._observer = observer
        self._scheduler = scheduler
        self._runner = SegmentRunner(energy, threads)
        self._exits = ExitDecider(observer)
        self._audits = Audits(self._runner, observer, self._exits)
        self._jobs = Jobs(self.lock, observer, energy, self._audits, node)
        self._handovers: Handovers | None = None
        if peers is not None:
            self._handovers = Handovers(
                peers, node, self.lock, self._jobs, self._exits, self._queue_again
            )
        self._models: dict[str, Model] = {}
        self.health = EngineHealth(scheduler.lanes, self._models, segment_hangs, guard)
        self._left: dict[Batch, list[Lease]] = {}
        """Batches that hang, and the leases of their jobs: they need their segments still."""
        self._broken: BackendError | None = None
        self._segment_failures = SegmentFailures(self.health, observer)
        self._dispatch_failures = FailureCounter("dispatch_policy", log)
        self._informing = InformingPolicy(scheduler, self.health)
        self._lanes: LaneThreads[LaneWork] = LaneThreads(
            scheduler.lanes, self.lock, self._find_work, self._do, self._lane_died
        )
        self._lanes.start()

    def add_model(self, model: Model) -> None:
        """Accept jobs of ``model`` at all its sizes."""
        with self.lock:
            self._models[model.name] = model
            for each in model.sizes:
                self._scheduler.learn_model(each.variant, each.view)

    def remove_model(self, name: str) -> int:
        """Accept no more jobs of model ``name`` and drop its audits, unless some jobs are queued or
        running, or hang: how many."""
        with self.lock:
            jobs = self._jobs.of(name) + sum(
                model_of(each.key.model) == name for each in self._left
            )
            if not jobs and name in self._models:
                variants = self._variants(name)
                del self._models[name]
                self._audits.keep_only(self._models)
                for variant in variants:
                    self._scheduler.forget_model(variant)
                    self.health.forget_model(variant)
            return jobs

    def _variants(self, name: str) -> list[str]:
        """What the scheduler calls model ``name`` at each of its sizes."""
        model = self._models.get(name)
        return [name] if model is None else [each.variant for each in model.sizes]

    def keep_resident(self, name: str, depth: int) -> None:
        """Only the first ``depth`` segments of model ``name`` are in memory from now on; jobs that
        need others wait for them, as long as their bounds let them."""
        with self.lock:
            for variant in self._variants(name):
                self._scheduler.keep_resident(variant, depth)
            self._lanes.wake_all()

    def end_unavailable(self, name: str) -> None:
        """End the jobs of model ``name`` that wait for a segment which cannot be loaded. Those that
        come to wait for it find it unavailable."""
        with self.lock:
            variants = self._variants(name)
            for task in [task for each in variants for task in self._scheduler.parked(each)]:
                if task.id in self._scheduler:  # it may end with another one of its batch
                    job = self._jobs[task.id]
                    if (error := job.unavailable) is not None:
                        with self._informing:
                            self._scheduler.remove(time.monotonic(), task.id)
                        self._jobs.end_early(job, "failed", error)

    def set_tenant(self, tenant: str, settings: TenantSettings) -> None:
        """From now on requests of ``tenant`` are served as its ``settings`` say."""
        with self.lock:
            self._scheduler.shares.set_weight(tenant, settings.weight)
            self._scheduler.shares.set_priority(tenant, settings.priority)

    def behind(self, tenants: Iterable[str]) -> set[str]:
        """Those of ``tenants`` that have used more than their share."""
        with self.lock:
            return self._scheduler.shares.behind(time.monotonic(), tenants)

    def backlog_seconds(self) -> float:
        """Seconds until everything that waits now is done."""
        with self.lock:
            return self._scheduler.backlog(time.monotonic())

    def read_load(self, models: Iterable[Model]) -> Load:
        """The load of the device now, on which ``models`` are served."""
        slowdowns = []
        with self.lock:
            now = time.monotonic()
            for model in models:
                model.relax(now)
                slowdowns += [size.costs.slowdown.mean for size in model.sizes]
            backlog, used = self._scheduler.backlog(now), self._scheduler.utilisation(now)
        return Load(backlog, used, max(slowdowns, default=1.0))

    def hold(self, jobs: Iterable[Job]) -> None:
        """Count ``jobs`` as under way, though there is no room for them in the queue yet."""
        with self.lock:
            for job in jobs:
                job.is_held = True
                self._jobs.add(job)

    def submit(self, job: Job, now: float) -> Task:
        """Queue a job ``now``; its future gets the answer."""
        with self.lock:
            if self._broken is not None:
                raise BackendError(str(self._broken))
            if self._lanes.stopping:
                raise Draining("the engine is closed", retry_after=1.0)
            if job.model.name not in self._models:
                raise ModelLoading(f"model {job.model.name!r} is not loaded", retry_after=1.0)
            if (error := job.unavailable) is not None:
                raise error
            if self._left and job.model.name in self.health.hung_models():
                raise hung(job.model.name)
            priority = self._scheduler.shares.priority(job.options.tenant, job.options.priority)
            task = job.task(priority, now)
            self._scheduler.add(now, task)
            job.is_held = False
            self._jobs.add(job)
            self._lanes.wake()
            return task

    def cancel(self, job: Job, error: DelenError | None = None) -> None:
        """End ``job`` at the end of its segment, or now if it waits: with the answer it has, or
        with ``error``, which by default says that it was cancelled."""
        with self.lock:
            job.cancelled = True
            if job.id in self._scheduler:
                with self._informing:
                    self._scheduler.remove(time.monotonic(), job.id)
            elif not (job.is_held or job.is_away) or job.future.done():
                return
            cancelled = "the request was cancelled before its first exit"
            self._jobs.end_early(job, "cancelled", error or Draining(cancelled, retry_after=1.0))

    def _queue_again(self, job: Job) -> bool:
        """Queue ``job``, which was away. False once nothing is queued any more."""
        if self._lanes.stopping or job.model.name not in self._models:
            return False
        now = time.monotonic()
        priority = self._scheduler.shares.priority(job.options.tenant, job.options.priority)
        self._scheduler.add(now, job.task(priority, now))
        self._lanes.wake()
        return True

    def lanes(self) -> tuple[int, int]:
        """How many batches may run at once, and how many do."""
        with self.lock:
            return self._scheduler.lanes, self._scheduler.busy

    @property
    def idle_since(self) -> float | None:
        """When the last job ended (``time.monotonic``); None while one is queued or running."""
        return self._jobs.idle_since

    def jobs_of(self, model: str) -> int:
        """How many jobs of ``model`` are queued or running."""
        return self._jobs.of(model)

    def handovers(self) -> Mapping[tuple[str, str], int]:
        """How many jobs were handed over, by peer and by what became of them."""
        return {} if self._handovers is None else dict(self._handovers.counts)

    def drain(self, timeout: float) -> bool:
        """Wait until no job is left, at most ``timeout`` seconds; True if none is."""
        return self._jobs.wait_for_none(timeout)

    def close(self) -> None:
        """Refuse what waits, let the running segments end, and stop the threads."""
        try:
            with self.lock:
                self._lanes.stopping = True
                self._lanes.wake_all()
                for job in self._jobs.all():
                    self.cancel(job)
        finally:
            self._lanes.join()

    def leave_hanging(self, now: float) -> bool:
        """Go on without the batches that should have returned by ``now``, on new threads; whether
        there are any. Their jobs end, and so do those that wait for the same model, which is
        refused until its batch has returned."""
        has_left = False
        for lane, batch in self.health.hanging(now):
            if not self.lock.acquire(timeout=_LOCK_PATIENCE):
                break  # a dispatch policy hangs, too
            try:
                has_left |= self._leave(lane, batch)
            finally:
                self.lock.release()
        return has_left

    def _leave(self, lane: int, batch: Batch) -> bool:
        if not self.health.leave(lane, batch):
            return False
        name, now = model_of(batch.key.model), time.monotonic()
        jobs = [job for task in batch.tasks if (job := self._jobs.get(task.id)) is not None]
        self._left[batch] = [job.lease for job in jobs]
        for job in jobs:
            job.lease = NO_LEASE
        with self._informing:
            self._scheduler.abandon(now, batch)
        for job in self._jobs.all():
            if job.model.name == name and job.id in self._scheduler:
                with self._informing:
                    self._scheduler.remove(now, job.id)
                jobs.append(job)
        for job in jobs:
            self._jobs.end_early(job, "failed", hung(name))
        self._lanes.replace(lane)
        log.error(
            "segment %d of %s hangs: %s is refused until it returns", *reversed(batch.key), name
        )
        return True

    def _came_back(self, batch: Batch) -> bool:
        """Whether ``batch``, which has returned, is one that its lane had left. With the lock
        held."""
        leases = self._left.pop(batch, None)
        if leases is None:
            return False
        for lease in leases:
            lease.end()
        self.health.came_back(batch)
        log.warning("segment %d of %s has returned: it is served again", *reversed(batch.key))
        return True

    def _lane_died(self, lane: int, error: BaseException) -> None:
        """Nothing is left to run what waits: end all jobs, and accept no more."""
        broken = BackendError(f"lane {lane} of the engine died: {type(error).__name__}: {error}")
        with self.lock:
            self._broken = broken
            self._lanes.stopping = True
            self._lanes.wake_all()
            for job in self._jobs.all():
                self._jobs.end_early(job, "failed", broken)

    def _find_work(self) -> tuple[LaneWork | None, float]:
        if self._broken is not None:
            return None, inf
        if len(self._scheduler):
            decision = self._decide()
            if decision.idle:
                return None, decision.wake
            if len(self._scheduler):
                self._lanes.wake()  # an idle lane looks after what waits on
            return decision, decision.wake
        self._report_dispatch_failures()
        return self._find_audit(), inf

    def _find_audit(self) -> _AuditRun | None:
        """An audit to run while nothing else waits or runs."""
        if not len(self._audits) or self._lanes.stopping or self._scheduler.busy:
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
        self.health.policy_called(began)
        decision = self._scheduler.next(began)
        self.health.policy_returned()
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
            for task in decision.overdue:
                self._answer_or_refuse(task, "latency")
            for task in decision.answer:
                self._jobs[task.id].cut_off = True
                self._answer_or_refuse(task, "policy")
            for task in decision.refuse:
                self._refuse(task)
            return None if decision.run is None else self._run(decision.run, lane)
        except Exception as error:
            self._abandon(decision, error)
            raise

    def _answer_or_refuse(self, task: Task, reason: Reason) -> None:
        """Refused where the answer that the scheduler knows of is on the node before."""
        job = self._jobs[task.id]
        if job.exit >= 0:
            self._jobs.answer(job, reason)
        else:
            self._refuse(task)

    def _abandon(self, decision: DispatchDecision, error: Exception) -> None:
        """Free the lane of ``decision``, and end its jobs that neither ended nor wait again."""
        failure = BackendError(f"the engine failed: {type(error).__name__}; see its log")
        run = () if decision.run is None else decision.run.tasks
        if decision.run is not None:
            try:
                with self.lock, self._informing:
                    self._scheduler.abandon(time.monotonic(), decision.run)
            except Exception as another:
                self._dispatch_failures.failed(another, "a batch that failed cannot be forgotten")
        for task in (*decision.overdue, *decision.answer, *decision.refuse, *run):
            with self.lock:
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
        self.health.batch_began(lane, batch)
        reasons: list[Reason | None] = [None] * len(jobs)
        try:
            ran = self._runner.run(jobs, lane)
            now, size = time.monotonic(), len(jobs)
            reasons = [self._reason_to_stop(job, size, now) for job in jobs]
        except Exception as error:
            ran = BatchRun(errors={job.id: error for job in jobs})
        self.health.batch_ended(lane, batch)
        problems = self._segment_failures.of(batch.key, jobs, ran.errors)
        work = ran.works[0] if len(ran.works) == 1 and not ran.errors else None
        ended: list[_End] = []
        following: LaneWork | None = None
        with self.lock:
            if self._left and self._came_back(batch):
                return None
            with self._informing as now:
                self._end_batch(now, batch, work if costs.profile is profile else None)
                for task, job, reason in zip(batch.tasks, jobs, reasons, strict=True):
                    end = self._end_of(job, reason, problems.get(job.id))
                    if end is None:
                        self._scheduler.resume(now, task, job.confidence, job.joules_left)
                    else:
                        self._scheduler.end(now, task)
                        ended.append(end)
            if not ended:
                following, _ = self._find_work()
            elif len(self._scheduler):
                self._lanes.wake()  # this lane has answers to write first
        for each in ran.works:
            self._observer.ran(each)
        for end in ended:
            self._send(end)
        return following

    def _run_alone(self, batch: Batch, job: Job, lane: int) -> LaneWork | None:
        """As ``_run``, of a batch of ``job`` alone: most batches are where few clients ask, and
        these steps are taken between any two segments. While nothing else waits the job goes
        straight on to its next one."""
        (task,) = batch.tasks
        costs, health = job.model.costs, self.health
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
            with self.lock:
                if self._left and self._came_back(batch):
                    return None
                with self._informing as now:
                    end = self._end_of(job, reason, problems.get(job.id))
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
                        self._lanes.wake()
                elif not goes_on:
                    following, _ = self._find_work()
            if work is not None:
                self._observer.ran(work)
            if end is not None:
                self._send(end)
        return following

    def _end_of(self, job: Job, reason: Reason | None, problem: DelenError | None) -> _End | None:
        """How ``job`` ends after its segment, for a ``reason`` or by a ``problem``; None if it goes
        on."""
        if problem is not None:
            return _End(job, None, problem)
        if job.cancelled:
            return _End(job, "cancelled", None)
        if reason is not None:
            return _End(job, reason, None)
        problem = job.unavailable
        return None if problem is None else _End(job, None, problem)

    def _send(self, end: _End) -> None:
        """The last that a lane does for a job: whoever waits for it is woken, and wants the
        interpreter at once."""
        job, reason, problem = end
        if reason == "suspended" and (way := job.way) is not None and self._handovers is not None:
            self._handovers.begin(job, way)
        elif reason is not None:
            self._jobs.answer(job, reason)
        elif problem is not None:
            self._jobs.end_early(job, "failed", problem)

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

    def _refuse(self, task: Task) -> None:
        """Refuse ``task``, which has no answer; one that accepts the best effort gets more time."""
        job = self._jobs[task.id]
        with self.lock:
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

    def _run_audit(self, audit: Audit, batch: Batch, lane: int) -> None:
        costs = audit.model.costs
        profile = costs.profile
        self.health.batch_began(lane, batch)
        work = self._audits.run(audit, lane)
        self.health.batch_ended(lane, batch)
        try:
            with self.lock, self._informing as now:
                if self._left and self._came_back(batch):
                    return
                self._end_batch(now, batch, work if costs.profile is profile else None)
        except Exception:
            with self.lock, self._informing:
                self._scheduler.abandon(time.monotonic(), batch)
            raise
        if work is not None:
            self._observer.ran(work)
            self._audits.go_on(audit)


def _measured(work: Work | None) -> tuple[float | None, float | None]:
    """The seconds and joules that can be learnt from ``work``."""
    return (None, None) if work is None else (work.ended - work.began, work.joules)
