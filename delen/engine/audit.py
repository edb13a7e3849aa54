"""Early answers that are run on to the deepest exit, to see whether it agrees."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from delen.engine.answer import terms_of
from delen.engine.backends.base import Features
from delen.engine.job import Job
from delen.engine.model import Model
from delen.result import Reason

MOST_AUDITS = 4
"""Each waiting audit keeps its features, so few may wait; those beyond are left out."""


@dataclass(slots=True, eq=False)
class Audit:
    """An answered job on its way on: the next ``segment``, the class ``index`` that it answered,
    and the share of such answers that may differ from exit ``last``."""

    model: Model
    features: Features
    segment: int
    last: int
    index: int
    promised: float


class Audits:
    """The audits that wait for the device to have nothing else to do."""

    def __init__(self) -> None:
        self._waiting: deque[Audit] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def of(self, job: Job, reason: Reason, features: Features) -> Audit | None:
        """The audit of ``job``, which ended with these features, if it is one to be audited.

        Where too many wait it is left out, and bursts reach shallow exits first: so what is
        promised is promised of each exit apart.
        """
        model, terms = job.model, terms_of(job, reason)
        last = model.planner.promises.reference
        if reason != "confident" or terms is None or terms.threshold is None or job.exit >= last:
            return None
        if not model.watch.wants_audit() or len(self) >= MOST_AUDITS:
            return None
        assert job.logits is not None
        return Audit(
            model=model,
            features=features,
            segment=job.segment,
            last=last,
            index=int(job.logits.argmax()),
            promised=model.planner.promises.disagreement(terms.threshold, terms.deepest, job.exit),
        )

    def add(self, audit: Audit) -> None:
        self._waiting.append(audit)

    def next(self) -> Audit:
        """Take out the one that has waited longest."""
        return self._waiting.popleft()

    def put_back(self, audit: Audit) -> None:
        """It goes on with its next segment before any other."""
        self._waiting.appendleft(audit)
