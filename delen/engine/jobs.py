"""The jobs that are queued or running, each until it has its answer or an error."""

from __future__ import annotations

import logging
import threading
import time

from delen.core.failures import FailureCounter
from delen.core.result import Reason, Result
from delen.engine.audit import Audits
from delen.engine.energy_admission import EnergyAdmission
from delen.engine.job import Job
from delen.engine.observer import Observer
from delen.engine.receipt import terms_of, write_result
from delen.errors import DelenError
from delen.residency.lease import NO_LEASE

log = logging.getLogger("delen.engine")


class Jobs:
    """All jobs that are queued or running, by id. Many threads may call it, with or without
    ``lock``.

    A job always ends with the best answer it has, or with an error if it has none. The caller
    takes care of its task in the scheduler. ``node`` is what receipts of jobs on several nodes call
    this one.
    """

    def __init__(
        self,
        lock: threading.RLock,
        observer: Observer,
        energy: EnergyAdmission,
        audits: Audits,
        node: str,
    ) -> None:
        self._observer = observer
        self._energy = energy
        self._audits = audits
        self._node = node
        self._lock = lock
        self._ended = threading.Condition(lock)
        self._jobs: dict[int, Job] = {}
        self._failures = FailureCounter("request_end", log)
        self.idle_since: float | None = time.monotonic()
        """When the last one ended; None while there is one."""

    def __len__(self) -> int:
        return len(self._jobs)

    def __getitem__(self, id: int) -> Job:
        return self._jobs[id]

    def get(self, id: int) -> Job | None:
        """The job ``id``, None if it has ended."""
        return self._jobs.get(id)

    def all(self) -> list[Job]:
        with self._lock:
            return list(self._jobs.values())

    def of(self, model: str) -> int:
        """How many jobs are of ``model``."""
        with self._lock:
            return sum(job.model.name == model for job in self._jobs.values())

    def add(self, job: Job) -> None:
        """With the lock held."""
        self._jobs[job.id] = job
        self.idle_since = None

    def wait_for_none(self, timeout: float) -> bool:
        """Wait until no job is left, at most ``timeout`` seconds; True if none is."""
        with self._lock:
            return self._ended.wait_for(lambda: not self._jobs, timeout)

    def answer(self, job: Job, reason: Reason) -> None:
        """End ``job`` with the answer that it has, unless it has ended."""
        if job.has_ended:
            return
        terms = terms_of(job, reason)
        result, features = write_result(job, reason, time.monotonic(), self._node), job.features
        job.model.monitor.remember(job.request_id, result.index, terms)
        self._observer.answered(result)
        if not self._claim(job):
            return
        self._end(job, result)
        job.future.set_result(result)
        self._audits.consider(job, reason, terms, features)

    def fail(self, job: Job, error: DelenError) -> None:
        """End ``job`` with ``error``, unless it has ended."""
        if not self._claim(job):
            return
        self._end(job, None)
        self._energy.refused(job.options.tenant, error.code)
        job.future.set_exception(error)

    def end_early(self, job: Job, reason: Reason, error: DelenError) -> None:
        """End ``job`` with its best answer so far for ``reason``, with ``error`` only where it has
        none or where something fails that is informed of it."""
        try:
            if job.exit >= 0:
                self.answer(job, reason)
        except Exception as failure:
            self._failures.failed(failure, "a request did not end cleanly")
        if not job.future.done():
            self.end_anyhow(job, error)

    def end_anyhow(self, job: Job, error: DelenError) -> None:
        """End ``job`` with ``error``, even if something fails that is informed of it."""
        try:
            self.fail(job, error)
        except Exception as failure:
            self._failures.failed(failure, "a request did not end cleanly")
        if not job.future.done():
            job.future.set_exception(error)

    def _claim(self, job: Job) -> bool:
        """Whether the calling thread is the one to end ``job``."""
        with self._lock:
            is_first = not job.has_ended
            job.has_ended = True
            return is_first

    def _end(self, job: Job, result: Result | None) -> None:
        """Free all that ``job`` holds, each only once and whatever fails."""
        job.features, lease, job.lease = None, job.lease, NO_LEASE
        reserved, job.reserved = job.reserved, 0.0
        try:
            lease.end()
        finally:
            try:
                self._energy.ended(job.share, reserved, job.energy, result)
            finally:
                self._forget(job)

    def _forget(self, job: Job) -> None:
        with self._lock:
            self._jobs.pop(job.id, None)
            if not self._jobs:
                self.idle_since = time.monotonic()
                self._ended.notify_all()
