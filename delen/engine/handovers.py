"""Jobs on their way to other nodes and back."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from math import inf

from delen.core.failures import FailureCounter
from delen.core.handover import Way
from delen.core.result import Reason, Result
from delen.engine.exit_policy import ExitDecider
from delen.engine.job import Job
from delen.engine.jobs import Jobs
from delen.engine.peers import Peers
from delen.engine.receipt import write_result
from delen.errors import BackendError, DelenError, ModelLoading
from delen.scheduler.conditions import Conditions
from delen.scheduler.handover_plans import PlansFrom
from policies.plan.handover import Start

log = logging.getLogger("delen.engine")

_AT_ONCE = 8
"""Jobs that are on other nodes at the same time. Further ones stay here: none waits to be sent."""

_LONGEST = 10.0
"""Seconds for which another node is waited for where the job has no deadline."""

_MARGIN = 0.005
"""Seconds before its deadline at which a job is no longer waited for: its answer here is to be in
time."""


class Handovers:
    """Sends jobs to ``peers``, and ends them with what comes back. One of which nothing comes back
    goes on here, as far as its caps let it.

    A thread waits for each job that is away. It keeps no process that ends: its job has ended then.

    ``node`` is this one. ``lock`` is the executor's; with it held, ``queue`` queues a job for its
    next segment here, or returns false where none can be.
    """

    def __init__(
        self,
        peers: Peers,
        node: str,
        lock: threading.RLock,
        jobs: Jobs,
        exits: ExitDecider,
        queue: Callable[[Job], bool],
    ) -> None:
        self._peers = peers
        self._node = node
        self._lock = lock
        self._jobs = jobs
        self._exits = exits
        self._queue = queue
        self.counts: Counter[tuple[str, str]] = Counter()
        """Of jobs that were sent, by peer and by what became of them: ``answered`` there, or
        ``stayed`` here."""
        self._away = 0
        self._failures = FailureCounter("handover", log)

    def begin(self, job: Job, way: Way) -> None:
        """Hand ``job`` over, which waits for its next segment. It goes on here at once where as
        many as can be are away, nobody waits for it any more, or its bound leaves no time."""
        with self._lock:
            now = time.monotonic()
            seconds = _LONGEST
            if job.deadline < inf:
                seconds = job.deadline - job.model.costs.answering() - _MARGIN - now
            leaves = self._away < _AT_ONCE and seconds > 0 and not job.cancelled
            if leaves:
                self._away += 1
                job.is_away = True
        if not (leaves and self._leave(job, way, now, seconds)):
            self._end(job, way, None, 0.0)

    def _leave(self, job: Job, way: Way, now: float, seconds: float) -> bool:
        """False where there can be no thread for ``job``, which stays then."""
        of_job = job, way, now, seconds
        try:
            threading.Thread(
                target=self._run, args=of_job, name="delen-handover", daemon=True
            ).start()
        except RuntimeError as error:
            self._failures.failed(error, "a job was not handed over")
            with self._lock:
                self._away -= 1
                job.is_away = False
            return False
        return True

    def _run(self, job: Job, way: Way, sent: float, seconds: float) -> None:
        result = None
        try:
            begun = write_result(job, "suspended", sent, self._node)
            answer = self._peers.go_on(way.peer, begun, job.options.priority, seconds)
            _check(answer, job, way)
            result = answer
        except Exception as error:
            if not job.has_ended:
                self._failures.failed(error, "%s did not go on with a job", way.peer)
        self._end(job, way, result, time.monotonic() - sent)
        with self._lock:
            self._away -= 1

    def _end(self, job: Job, way: Way, result: Result | None, took: float) -> None:
        try:
            reason = self._take_back(job, way, result, took)
            if reason is not None:
                self._jobs.answer(job, reason)
        except Exception as error:
            self._failures.failed(error, "a job that was handed over did not end cleanly")
            message = f"the engine failed: {type(error).__name__}; see its log"
            self._jobs.end_early(job, "failed", BackendError(message))

    def _take_back(self, job: Job, way: Way, result: Result | None, took: float) -> Reason | None:
        """Why ``job`` ends, with the ``result`` of the other node if there is one; None if it has
        ended, or goes on here."""
        with self._lock:
            if job.has_ended:
                return None
            if job.is_away:
                self.counts[way.peer, "stayed" if result is None else "answered"] += 1
            if result is not None:
                job.came_back(result, way, took)
                return result.reason
            job.stayed(way, took)
            return self._go_on_here(job)

    def _go_on_here(self, job: Job) -> Reason | None:
        """None, or why ``job`` ends with the answer that it has."""
        if job.cancelled:
            return "cancelled"
        model, now = job.model, time.monotonic()
        start = Start(job.exit, job.plan.threshold, job.energy)
        plans = PlansFrom(model.planner, model.costs, model.own_plans, start)
        waits, holds, terms = model.residency.waits(), model.monitor.holds, job.plan.terms
        at = Conditions(
            spent=now - job.arrived,
            guaranteed=holds,
            price=terms.per_joule,
            waits=waits,
            terms=terms,
        )
        job.plan = plans.admit(job.bounds, at, best_effort=True)
        if (reason := self._exits.reason_to_stop(job, 1, now)) is not None:
            return reason
        try:
            job.lease = model.residency.lease(job.plan.exit, 0.0)
        except ModelLoading:
            return "latency"
        job.lease.passed(job.exit)
        return None if self._queue(job) else "cancelled"


def _check(result: Result, job: Job, way: Way) -> None:
    """DelenError unless ``result`` can be the end of ``job``."""
    manifest, probabilities = job.model.bundle.manifest, result.probabilities
    is_right = way.exit < result.exit < len(manifest.exits)
    if not is_right or probabilities is None or probabilities.shape != (manifest.classes,):
        raise DelenError(f"{way.peer} gave an answer that is none to the job")
