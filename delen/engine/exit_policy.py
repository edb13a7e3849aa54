"""Decides at exits by a model's exit policy, and by the default where that fails."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from delen.core.failures import FailureCounter
from delen.core.result import Reason
from delen.engine.job import Job
from delen.engine.model import Model
from delen.engine.observer import Observer
from delen.scheduler.exit_guard import guarded_decision, guarded_learning
from policies.exit.learning import FullRun, LearningPolicy

log = logging.getLogger("delen.engine")


class ExitDecider:
    """Decides whether a job stops at the exit that it reached. One lane at a time calls the exit
    policy of a model, since it may keep state."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._failures = FailureCounter("exit_policy", log)

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
        with model.deciding:
            decision, error = guarded_decision(model.policy, view)
            if model.learner is not None:
                self._report(model, model.learner)
        if error is not None:
            self._failures.failed(
                error, "the exit policy of %s failed; the default decides", model.name
            )
            self._observer.policy_failed(model.name)
        return decision.reason

    def learn(self, model: Model, trail: Sequence[tuple[float, int]], weight: float = 1.0) -> None:
        """Have the policy of ``model``, which learns, see the confidence and the answer of every
        exit up to the deepest useful one, which stand for ``weight`` answers."""
        assert model.learner is not None
        answer = trail[-1][1]
        run = FullRun(
            [confidence for confidence, _ in trail],
            [index == answer for _, index in trail],
            [model.costs.typical(0, exit, 1) for exit in range(len(trail))],
            weight,
        )
        with model.deciding:
            error = guarded_learning(model.learner, run)
            self._report(model, model.learner)
        if error is not None:
            self._failures.failed(error, "the exit policy of %s failed to learn", model.name)
            self._observer.policy_failed(model.name)

    def _report(self, model: Model, learner: LearningPolicy) -> None:
        while learner.reports:
            log.info("model %s: %s", model.variant, learner.reports.pop(0))
        model.monitor.follow(model.variant, learner.has_departed)
