"""Early answers that are run on to the deepest exit, to see whether it agrees."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from delen.core.failures import FailureCounter
from delen.core.result import Reason
from delen.core.work import Work
from delen.engine.backends.base import Features
from delen.engine.exit_policy import ExitDecider
from delen.engine.job import Job
from delen.engine.model import Model
from delen.engine.observer import Observer
from delen.engine.runner import SegmentRunner
from policies.plan.promises import Terms

log = logging.getLogger("delen.engine")

MOST_AUDITS = 4
"""So many audits may wait: each keeps its features in memory. Further ones are left out."""


@dataclass(slots=True, eq=False)
class Audit:
    """An answered job on its way on: the next ``segment``, the class ``index`` that it answered,
    and the share of such answers that may differ from exit ``last``, where one is ``promised``.
    ``agrees`` is known once that was reached. ``weight`` is how many answers it stands for;
    ``trail`` is the job's."""

    model: Model
    features: Features
    segment: int
    last: int
    index: int
    promised: float | None
    weight: int
    trail: list[tuple[float, int]]
    agrees: bool | None = None


class Audits:
    """The audits that wait until the device is idle. Any thread may add one; one thread at a time
    may take some out."""

    def __init__(self, runner: SegmentRunner, observer: Observer, exits: ExitDecider) -> None:
        self._runner = runner
        self._exits = exits
        self._observer = observer
        self._waiting: deque[Audit] = deque()
        self._failures = FailureCounter("audit", log)

    def __len__(self) -> int:
        return len(self._waiting)

    def consider(self, job: Job, reason: Reason, terms: Terms | None, features: Features) -> None:
        """Queue an audit of ``job``, which ended for ``reason`` with these features, if its exit
        policy ended it early and it is to be audited. ``terms`` are what was promised of its
        answer. An exit policy that learns does so at once from a job that ran to the deepest exit.

        If too many wait it is left out. Bursts reach shallow exits first, so the promise is one of
        each exit apart.
        """
        model, last = job.model, job.model.planner.promises.reference
        if job.exit >= last:
            if len(job.trail) > last:
                self._exits.learn(model, job.trail[: last + 1])
            return
        is_promised = reason == "confident" and terms is not None and terms.threshold is not None
        is_learnt = model.learner is not None and len(job.trail) == job.exit + 1 and not job.cut_off
        if not is_promised and not (is_learnt and reason == "policy"):
            return
        weight = model.monitor.audits(has_room=len(self) < MOST_AUDITS)
        if not weight:
            return
        promised = None
        if terms is not None and terms.threshold is not None:
            promised = model.planner.promises.disagreement(terms.threshold, terms.deepest, job.exit)
        assert job.logits is not None
        audit = Audit(
            model=model,
            features=features,
            segment=job.segment,
            last=last,
            index=int(job.logits.argmax()),
            promised=promised,
            weight=weight,
            trail=job.trail if is_learnt else [],
        )
        self._waiting.append(audit)

    def keep_only(self, models: Mapping[str, Model]) -> None:
        """Leave out the audits of models that are not in ``models``, which has them by name."""
        for audit in self._waiting.copy():
            model = models.get(audit.model.name)
            if model is None or audit.model not in model.sizes:
                self._waiting.remove(audit)

    def next(self) -> Audit:
        """Take out the one that has waited longest."""
        return self._waiting.popleft()

    def run(self, audit: Audit, lane: int) -> Work | None:
        """Run the next segment of ``audit``. None if that failed, or if the segment is not in
        memory: it is not loaded for an audit."""
        model, segment = audit.model, audit.segment
        lease = model.residency.lease_resident(segment)
        if lease is None:
            return None
        try:
            run, work = self._runner.run_sample(model, segment, audit.features, lane)
            if audit.trail:
                audit.trail.append((run.confidence.item(0), int(run.logits[0].argmax())))
            if segment == audit.last:
                audit.agrees = int(run.logits[0].argmax()) == audit.index
            else:
                audit.features, audit.segment = run.features[0], segment + 1
        except Exception as error:
            message = "segment %d of %s failed in an audit"
            self._failures.failed(error, message, segment, model.name)
            return None
        finally:
            lease.end()
        return work

    def go_on(self, audit: Audit) -> None:
        """After a run: report whether the exits agree, or let it go on before any other audit."""
        if audit.agrees is None:
            self._waiting.appendleft(audit)
            return
        if audit.promised is not None:
            audit.model.monitor.audited(audit.agrees, audit.promised)
        if audit.trail:
            self._exits.learn(audit.model, audit.trail, audit.weight)
        self._observer.audited(audit.model.name, audit.agrees)
