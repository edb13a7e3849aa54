"""Asks the exit policy of a model, and the default where that fails."""

from __future__ import annotations

import logging
import threading

from delen.core.result import Reason
from delen.engine.job import Job
from delen.engine.observer import Observer
from delen.scheduler.exit_guard import guarded_decision

log = logging.getLogger("delen.engine")


class ExitDecider:
    """Says of jobs that reached an exit whether they stop there. Exit policies are asked by one
    lane at a time, since they may keep state."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._reported: set[str] = set()
        self._asking = threading.Lock()

    def reason_to_stop(self, job: Job, batch: int, now: float) -> Reason | None:
        """Why ``job``, which has just left a batch of so many, ends here; None if it goes on."""
        model = job.model
        view = model.views.at(
            job.exit,
            job.confidence,
            job.bounds,
            job.plan,
            now - job.arrived,
            job.energy,
            min(batch, model.figures.max_batch),
        )
        with self._asking:
            decision, error = guarded_decision(model.policy, view)
        if error is not None:
            if model.name not in self._reported:
                self._reported.add(model.name)
                message = "the exit policy of %s failed; the default decides"
                log.error(message, model.name, exc_info=error)
            self._observer.policy_failed(model.name)
        return decision.reason
