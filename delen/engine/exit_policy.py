"""Decides at exits by a model's exit policy, and by the default where that fails."""

from __future__ import annotations

import logging
import threading

from delen.core.failures import FailureCounter
from delen.core.result import Reason
from delen.engine.job import Job
from delen.engine.observer import Observer
from delen.scheduler.exit_guard import guarded_decision

log = logging.getLogger("delen.engine")


class ExitDecider:
    """Decides whether a job stops at the exit that it reached. One lane at a time calls an exit
    policy, since it may keep state."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._failures = FailureCounter("exit_policy", log)
        self._deciding = threading.Lock()

    def reason_to_stop(self, job: Job, batch: int, now: float) -> Reason | None:
        """Why ``job``, which has just run in a ``batch`` of so many, ends here; None if it goes
        on."""
        model = job.model
        view = model.exit_view.at(
            job.exit,
            job.confidence,
            job.bounds,
            job.plan,
            now - job.arrived,
            job.total_energy,
            1 if batch == 1 else min(batch, model.view.max_batch),
        )
        with self._deciding:
            decision, error = guarded_decision(model.policy, view)
        if error is not None:
            self._failures.failed(
                error, "the exit policy of %s failed; the default decides", model.name
            )
            self._observer.policy_failed(model.name)
        return decision.reason
