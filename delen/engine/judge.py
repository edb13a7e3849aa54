"""Asks the exit policy of a model, and the default where that fails."""

from __future__ import annotations

import logging
import threading
from typing import get_args

from delen.engine.job import Job
from delen.engine.observer import Observer
from delen.plan import Decision, ExitView
from delen.result import Reason
from policies.exits import BoundsPolicy

log = logging.getLogger("delen.engine")


class Judge:
    """Says of jobs that reached an exit whether they stop there. Exit policies are asked by one
    lane at a time, since they may keep state."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._fallback = BoundsPolicy()
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
        try:
            with self._asking:
                decision = model.policy.decide(view)
            _check(decision, view)
        except Exception:
            if model.name not in self._reported:
                self._reported.add(model.name)
                log.exception("the exit policy of %s failed; the default decides", model.name)
            self._observer.policy_failed(model.name)
            decision = self._fallback.decide(view)
        return decision.reason


def _check(decision: object, view: ExitView) -> None:
    """ValueError unless ``decision``, from a plug-in, can be followed."""
    if not isinstance(decision, Decision) or decision.reason not in (None, *get_args(Reason)):
        raise ValueError(f"the policy gave {decision!r}, which is no decision")
    if view.next_exit is None and not decision.stop:
        raise ValueError(f"the policy went on at exit {view.exit}, where the plan ends")
