"""A request on its way through the segments."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from math import inf

import numpy as np
from numpy.typing import NDArray

from delen.bundle.confidence import PATIENCE, patience
from delen.core.bounds import Bounds, Options
from delen.core.dispatch import Task
from delen.core.plan import Plan
from delen.core.result import Result
from delen.core.work import Share
from delen.engine.backends.base import Features
from delen.engine.model import Model
from delen.errors import DelenError
from delen.residency.lease import NO_LEASE, Lease


@dataclass(slots=True, eq=False)
class Job:
    """One input, its bounds and plan, and the best answer so far (``exit`` -1: none yet).

    ``plan``, the ``reserved`` joules, and the ``lease``, which keeps the segments that it still
    needs in memory, are set when it is admitted; ``model`` is then the one at the plan's size.
    ``streak`` is how many exits before the last gave the same answer in a row, counted under the
    criterion ``patience`` alone. ``cut_off`` is true where the dispatch policy ended it with the
    answer that it had.

    ``share`` is the tenant that bears what it costs.
    ``arrived`` is on the runtime's monotonic clock; its request came in for ``receiving``
    seconds, as far as that is known. ``is_held`` is true while it waits for room in
    the queue. ``future`` gets the Result, or the error of a job that ends with no answer at all.
    """

    id: int
    request_id: str
    model: Model
    bounds: Bounds
    options: Options
    arrived: float
    features: Features
    receiving: float | None = None
    plan: Plan = field(init=False)
    share: Share = field(init=False)
    future: Future[Result] = field(default_factory=Future)
    started: float = inf
    segment: int = 0
    exit: int = -1
    confidence: float = 0.0
    logits: NDArray[np.float32] | None = None
    streak: int = 0
    energy: float | None = 0.0
    reserved: float = 0.0
    cancelled: bool = False
    cut_off: bool = False
    has_ended: bool = False
    is_held: bool = False
    lease: Lease = NO_LEASE

    def __post_init__(self) -> None:
        self.share = Share(self.request_id, self.options.tenant)

    @property
    def deadline(self) -> float:
        max_latency = self.bounds.max_latency
        return inf if max_latency is None else self.arrived + max_latency

    @property
    def joules_left(self) -> float:
        """What is left of the cap on its energy; inf without a cap, or where its energy is
        unknown."""
        cap = self.bounds.max_energy
        return inf if cap is None or self.energy is None else cap - self.energy

    @property
    def unavailable(self) -> DelenError | None:
        """Why its next segment can never run, None if it can."""
        return self.model.residency.failure(self.segment)

    @property
    def accepts_best_effort(self) -> bool:
        return self.options.on_infeasible == "best_effort"

    def task(self, priority: int, now: float) -> Task:
        """This job as the scheduler sees it, before its first segment, with ``priority``. One that
        is held comes ``now``, so that it does not go before all that came since."""
        return Task(
            id=self.id,
            model=self.model.variant,
            tenant=self.options.tenant,
            arrived=now if self.is_held else self.arrived,
            segment=0,
            last=self.plan.exit,
            deadline=self.deadline,
            priority=priority,
            floor=self.bounds.min_accuracy is not None and self.plan.threshold is not None,
            threshold=self.plan.threshold,
            joules_left=self.joules_left,
        )

    def reached(
        self,
        exit: int,
        confidence: float,
        logits: NDArray[np.float32],
        joules: float | None,
        features: Features | None,
    ) -> None:
        """Keep the answer of ``exit`` as the best so far, and add the energy that it took.

        Under the criterion ``patience`` the confidence is how many exits in a row gave the same
        answer, whatever ``confidence`` the graph computed.
        """
        manifest = self.model.bundle.manifest
        if manifest.criterion == PATIENCE:
            same = self.logits is not None and self.logits.argmax() == logits.argmax()
            self.streak = self.streak + 1 if same else 0
            confidence = patience(self.streak, len(manifest.exits))
        self.exit = exit
        self.confidence = confidence
        self.logits = logits
        self.energy = None if self.energy is None or joules is None else self.energy + joules
        self.features = features
        self.segment = exit + 1
        self.lease.passed(exit)
