"""The thread that owns the device: it runs segments and asks the exit policy after each."""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol, get_args

from delen.costs import Costs
from delen.energy import Work
from delen.engine.answer import terms_of, write_result
from delen.engine.audit import Audit, Audits
from delen.engine.backends.base import SegmentRun
from delen.engine.desk import EnergyDesk, IdleDesk
from delen.engine.job import Job
from delen.engine.model import Model
from delen.errors import BackendError, DelenError, Draining
from delen.plan import Decision, ExitView
from delen.result import Reason, Result
from delen.scheduler.queue import Batch, Scheduler
from policies.exits import BoundsPolicy

log = logging.getLogger("delen.engine")


class Observer(Protocol):
    """Told of what the worker did, on its thread or a canceller's; it has to be quick."""

    def answered(self, result: Result) -> None: ...
    def ran(self, work: Work) -> None: ...
    def policy_failed(self, model: str) -> None: ...
    def audited(self, model: str, agreed: bool) -> None: ...


def _check_decision(decision: object, view: ExitView) -> None:
    """ValueError unless ``decision``, from a plug-in, can be followed."""
    if not isinstance(decision, Decision) or decision.reason not in (None, *get_args(Reason)):
        raise ValueError(f"the policy gave {decision!r}, which is no decision")
    if view.next_exit is None and not decision.stop:
        raise ValueError(f"the policy went on at exit {view.exit}, where the plan ends")


def _cancelled() -> Draining:
    return Draining("cancelled before its first exit", retry_after=1.0)


class Worker:
    """Runs jobs to their answers, one batch of one segment at a time.

    A job always ends: with the best answer it has, or, where it has none, with an error. Some
    early answers are audited: once they are out, and while nothing else waits, they are run on
    to the deepest exit. Nobody waits for that, but for the segment that runs.
    """

    def __init__(self, observer: Observer, threads: int, desk: EnergyDesk | None = None) -> None:
        self._observer = observer
        self._desk = desk or IdleDesk()
        self._threads = threads
        self._scheduler = Scheduler()
        self._jobs: dict[int, Job] = {}
        self._audits = Audits()
        self._running_work = 0.0
        self._costs: dict[str, Costs] = {}
        self._max_batch: dict[str, int] = {}
        self._fallback = BoundsPolicy()
        self._policies_reported: set[str] = set()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="delen-worker", daemon=True)
        self._thread.start()

    def add_model(self, model: Model) -> None:
        with self._changed:
            self._costs[model.name] = model.costs
            self._max_batch[model.name] = model.bundle.manifest.max_batch

    def submit(self, job: Job) -> None:
        """Queue a job; its future gets the answer."""
        with self._changed:
            if self._stopping:
                raise Draining("the engine is closed", retry_after=1.0)
            job.future.set_running_or_notify_cancel()
            self._jobs[job.id] = job
            self._scheduler.add(job.waiting())
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """End ``job`` at its next segment's end, or now if it waits."""
        with self._changed:
            job.cancelled = True
            if job.id in self._scheduler:
                self._scheduler.remove(job.id)
                self._end_early(job, _cancelled())

    def backlog(self, priority: int) -> float:
        """Predicted seconds of work that a new job of this priority waits for."""
        with self._changed:
            waiting = self._scheduler.backlog(self._costs, priority)
            return waiting + self._running_work

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
                job.cancelled = True
                if job.id in self._scheduler:
                    self._scheduler.remove(job.id)
                    self._end_early(job, _cancelled())
            self._changed.notify_all()
        self._thread.join()

    def _end_early(self, job: Job, error: DelenError) -> None:
        """End ``job`` with its best answer so far, with ``error`` only where it has none."""
        if job.exit >= 0:
            self._answer(job, "cancelled")
        else:
            self._fail(job, error)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopping or len(self._scheduler) > 0 or len(self._audits) > 0
                )
                batch = self._scheduler.next(time.monotonic(), self._costs, self._max_batch)
                if batch is None and self._stopping:
                    return
                audit = self._audits.next() if batch is None else None
                jobs = () if batch is None else tuple(self._jobs[id] for id in batch.jobs)
                self._running_work = self._predict(batch, jobs, audit)
            if batch is not None:
                self._run_or_fail(batch, jobs)
            elif audit is not None:
                self._run_audit(audit)
            batch = audit = None
            jobs = ()  # nothing of a model that is unloaded meanwhile may be held here
            with self._changed:
                self._running_work = 0.0

    def _predict(self, batch: Batch | None, jobs: tuple[Job, ...], audit: Audit | None) -> float:
        """Seconds that the device is typically busy with ``jobs``, or with the next segment of
        ``audit``."""
        if batch is not None:
            last = max(job.plan.exit for job in jobs)
            return self._costs[batch.model].typical(batch.segment, last, len(jobs))
        assert audit is not None
        return audit.model.costs.typical(audit.segment, audit.segment, 1)

    def _run_or_fail(self, batch: Batch, jobs: tuple[Job, ...]) -> None:
        try:
            self._run(batch, jobs)
        except Exception as error:
            log.exception("segment %d of %s failed", batch.segment, batch.model)
            failure = BackendError(f"the engine failed in segment {batch.segment}: {error}")
            for job in jobs:
                if job.id in self._jobs and job.id not in self._scheduler:
                    self._end_early(job, failure)

    def _run(self, batch: Batch, jobs: tuple[Job, ...]) -> None:
        model, segment, size = jobs[0].model, batch.segment, len(jobs)
        cost = model.costs.cost(segment, size)
        began, processor = time.monotonic(), time.thread_time()
        for job in jobs:
            job.started = min(job.started, began)
        run = model.network.run(segment, [job.features for job in jobs])
        processor = (time.thread_time() - processor) * self._threads
        now = time.monotonic()
        model.costs.learn(segment, size, now - began)
        energy, shares = model.costs.energy, tuple(job.share for job in jobs)
        joules = energy.predict(cost, processor)
        work = Work(model.name, segment, size, began, now, joules, shares)
        self._desk.ran(work)
        each = None if joules is None else joules * energy.factor(segment) / size
        self._take_answers(jobs, segment, run, each)
        for job in jobs:
            self._decide(job, size, now)
        self._observer.ran(work)

    @staticmethod
    def _take_answers(
        jobs: tuple[Job, ...], segment: int, run: SegmentRun, joules: float | None
    ) -> None:
        features = run.features or [None] * len(jobs)
        for index, job in enumerate(jobs):
            job.reached(
                segment,
                float(run.confidence[index]),
                run.logits[index].copy(),
                joules,
                features[index],
            )

    def _decide(self, job: Job, batch: int, now: float) -> None:
        if job.cancelled:
            self._answer(job, "cancelled")
            return
        decision = self._ask_policy(job, self._view(job, batch, now))
        if decision.reason is not None:
            self._answer(job, decision.reason)
            return
        with self._changed:
            if job.cancelled:
                self._answer(job, "cancelled")
            else:
                self._scheduler.add(job.waiting())

    def _view(self, job: Job, batch: int, now: float) -> ExitView:
        model = job.model
        next_exit = model.planner.next_useful(job.exit, job.plan.exit)
        time_to_next, energy_at_next = 0.0, job.energy
        if next_exit is not None:
            time_to_next = model.costs.latency(job.exit + 1, next_exit, batch)
            time_to_next += model.costs.answering()
            joules = model.costs.planned_energy(job.exit + 1, next_exit, batch)
            energy_at_next = None if job.energy is None or joules is None else job.energy + joules
        return ExitView(
            exit=job.exit,
            exits=model.exits,
            confidence=job.confidence,
            accuracy=model.planner.accuracies[job.exit],
            macs=model.bundle.exits[job.exit].macs,
            elapsed=now - job.arrived,
            energy=job.energy,
            next_exit=next_exit,
            time_to_next=time_to_next,
            energy_at_next=energy_at_next,
            bounds=job.bounds,
            plan=job.plan,
        )

    def _run_audit(self, audit: Audit) -> None:
        """Run the next segment of ``audit``; the last one tells whether its exit agrees."""
        model, segment = audit.model, audit.segment
        try:
            began, processor = time.monotonic(), time.thread_time()
            run = model.network.run(segment, [audit.features])
            processor = (time.thread_time() - processor) * self._threads
            ended = time.monotonic()
        except Exception:
            log.exception("segment %d of %s failed in an audit", segment, model.name)
            return
        model.costs.learn(segment, 1, ended - began)
        joules = model.costs.energy.predict(model.costs.cost(segment, 1), processor)
        for told in (self._desk, self._observer):
            told.ran(Work(model.name, segment, 1, began, ended, joules, ()))
        if segment < audit.last:
            audit.features, audit.segment = run.features[0], segment + 1
            with self._changed:
                self._audits.put_back(audit)
            return
        agrees = int(run.logits[0].argmax()) == audit.index
        model.watch.audited(agrees, audit.promised)
        self._observer.audited(model.name, agrees)

    def _ask_policy(self, job: Job, view: ExitView) -> Decision:
        try:
            decision = job.model.policy.decide(view)
            _check_decision(decision, view)
            return decision
        except Exception:
            if job.model.name not in self._policies_reported:
                self._policies_reported.add(job.model.name)
                log.exception("the exit policy of %s failed; the default decides", job.model.name)
            self._observer.policy_failed(job.model.name)
            return self._fallback.decide(view)

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
