"""Runs jobs to their answers, as the scheduler says."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from delen.core.crash_guard import CrashGuard
from delen.core.dispatch import DispatchPolicy, Task
from delen.core.tenant import TenantSettings
from delen.engine.audit import Audits
from delen.engine.energy_admission import EnergyAdmission
from delen.engine.exit_policy import ExitDecider
from delen.engine.handovers import Handovers
from delen.engine.health import SEGMENT_HANGS, EngineHealth, hung
from delen.engine.job import Job
from delen.engine.job_ends import JobEnds
from delen.engine.jobs import Jobs
from delen.engine.lane_worker import LaneWorker
from delen.engine.model import Model
from delen.engine.observer import Observer
from delen.engine.peers import Peers
from delen.engine.runner import SegmentRunner
from delen.errors import BackendError, DelenError, Draining, ModelLoading
from delen.scheduler.core import Scheduler


class Load(NamedTuple):
    """Seconds of work that wait, the share of all lanes that was busy in the last seconds, and how
    many times longer than profiled the slowest model takes."""

    backlog: float
    utilisation: float
    slowdown: float


LOCAL = "local"
"""A node that nobody gave a name."""

_LOCK_PATIENCE = 1.0
"""Seconds."""


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
        runner = SegmentRunner(energy, threads)
        self._exits = ExitDecider(observer)
        self._audits = Audits(runner, observer, self._exits)
        self._jobs = Jobs(self.lock, observer, energy, self._audits, node)
        self._handovers: Handovers | None = None
        if peers is not None:
            self._handovers = Handovers(
                peers, node, self.lock, self._jobs, self._exits, self._queue_again
            )
        self._models: dict[str, Model] = {}
        self.health = EngineHealth(scheduler.lanes, self._models, segment_hangs, guard)
        self._worker = LaneWorker(
            self.lock,
            scheduler,
            self._jobs,
            self.health,
            observer,
            runner,
            self._exits,
            self._audits,
            JobEnds(self.lock, scheduler, self._jobs, self._handovers),
            self._models,
            self._lane_died,
        )
        self._informing, self._hung = self._worker.informing, self._worker.hung
        self._lanes = self._worker.threads
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
            jobs = self._jobs.of(name) + self._hung.of(name)
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
            if self._worker.broken is not None:
                raise BackendError(str(self._worker.broken))
            if self._lanes.stopping:
                raise Draining("the engine is closed", retry_after=1.0)
            if job.model.name not in self._models:
                raise ModelLoading(f"model {job.model.name!r} is not loaded", retry_after=1.0)
            if (error := job.unavailable) is not None:
                raise error
            if self._hung.left and job.model.name in self.health.hung_models():
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
        """Queue ``job``, which was away. False where nothing of its model is queued now."""
        if self._lanes.stopping or job.model.name not in self._models:
            return False
        if job.model.name in self.health.hung_models():
            return False
        now = time.monotonic()
        priority = self._scheduler.shares.priority(job.options.tenant, job.options.priority)
        self._scheduler.add(now, job.task(priority, now))
        self._lanes.wake()
        return True

    def use_dispatch(self, policy: DispatchPolicy) -> None:
        """``policy``, which is new, decides from now on what runs."""
        with self.lock:
            self._scheduler.use(policy)
            self._lanes.wake_all()

    def dispatch(self) -> tuple[str, int]:
        """The dispatch policy in force, and how often policies failed."""
        with self.lock:
            return self._scheduler.policy, self._scheduler.failures

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
                if self._hung.leave(lane, batch, now):
                    self._lanes.replace(lane)
                    has_left = True
            finally:
                self.lock.release()
        return has_left

    def _lane_died(self, lane: int, error: BaseException) -> None:
        """Nothing is left to run what waits: end all jobs, and accept no more."""
        broken = BackendError(f"lane {lane} of the engine died: {type(error).__name__}: {error}")
        with self.lock:
            self._worker.broken = broken
            self._lanes.stopping = True
            self._lanes.wake_all()
            for job in self._jobs.all():
                self._jobs.end_early(job, "failed", broken)
