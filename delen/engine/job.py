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
from delen.core.handover import LINK, Part, Past, Way, total_energy
from delen.core.plan import Plan
from delen.core.result import AccuracyOutcome, Result
from delen.core.work import Share
from delen.engine.backends.base import Features
from delen.engine.model import Model
from delen.errors import DelenError
from delen.residency.lease import NO_LEASE, Lease
from delen.scheduler.plan_cache import PlanSource


@dataclass(slots=True, eq=False)
class Job:
    """One input, its bounds and plan, and the best answer so far (``exit`` -1: none yet).

    ``plan``, the ``reserved`` joules, and the ``lease``, which keeps the segments that it still
    needs in memory, are set when it is admitted; ``model`` is then the one at the plan's size.
    ``streak`` is how many exits before the last gave the same answer in a row, counted under the
    criterion ``patience`` alone. ``trail`` has the confidence and the answer of every exit reached
    here, where the exit policy learns. ``cut_off`` is true where the dispatch policy ended it with
    the answer that it had.

    ``share`` is the tenant that bears what it costs.
    ``arrived`` is on the runtime's monotonic clock; its request came in for ``receiving``
    seconds, as far as that is known. ``is_held`` is true while it waits for room in
    the queue. ``future`` gets the Result, or the error of a job that ends with no answer at all.

    A job that another node began has a ``past``: it begins after its exit, ``arrived`` is as long
    ago as it has taken, and ``energy`` is its own, here. It has no answer before its next exit; the
    node before keeps one. ``plans`` are those of a job of which another node may do a part.
    ``elsewhere`` is what it took on its way to another node and there; ``verdict`` is what that
    node says of its accuracy. ``is_away`` is true while it is there.
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
    trail: list[tuple[float, int]] = field(default_factory=list)
    energy: float | None = 0.0
    reserved: float = 0.0
    cancelled: bool = False
    cut_off: bool = False
    has_ended: bool = False
    is_held: bool = False
    lease: Lease = NO_LEASE
    past: Past | None = None
    plans: PlanSource | None = None
    elsewhere: tuple[Part, ...] = ()
    verdict: AccuracyOutcome | None = None
    is_away: bool = False

    def __post_init__(self) -> None:
        self.share = Share(self.request_id, self.options.tenant)
        if self.past is not None:
            self.arrived -= self.past.seconds
            self.segment = self.past.exit + 1
            self.confidence = self.past.confidence

    @property
    def deadline(self) -> float:
        max_latency = self.bounds.max_latency
        return inf if max_latency is None else self.arrived + max_latency

    @property
    def way(self) -> Way | None:
        """How another node is to go on with it."""
        return None if self.plans is None else self.plans.way

    @property
    def suspend_at(self) -> int | None:
        """The exit after which another node is to go on with it."""
        way = self.way
        return self.options.suspend_at if way is None else way.exit

    @property
    def total_energy(self) -> float | None:
        """Its joules on all nodes; None where some are unknown."""
        if self.energy is None or (self.past is None and not self.elsewhere):
            return self.energy
        joules = total_energy((*(() if self.past is None else self.past.parts), *self.elsewhere))
        return None if joules is None else joules + self.energy

    @property
    def joules_left(self) -> float:
        """What is left of the cap on its energy; inf without a cap, or where its energy is
        unknown."""
        cap, used = self.bounds.max_energy, self.total_energy
        return inf if cap is None or used is None else cap - used

    @property
    def unavailable(self) -> DelenError | None:
        """Why its next segment can never run, None if it can."""
        return self.model.residency.failure(self.segment)

    @property
    def accepts_best_effort(self) -> bool:
        return self.options.on_infeasible == "best_effort"

    def task(self, priority: int, now: float) -> Task:
        """This job as the scheduler sees it, before its first segment here, with ``priority``. One
        that is held comes ``now``, so that it does not go before all that came since. One with a
        past has an answer, on the node before; one that goes on elsewhere leaves time for that."""
        return Task(
            id=self.id,
            model=self.model.variant,
            tenant=self.options.tenant,
            arrived=now if self.is_held else self.arrived,
            segment=self.segment,
            last=self.plan.exit,
            deadline=self.deadline - (0.0 if self.way is None else self.way.seconds),
            priority=priority,
            floor=self.bounds.min_accuracy is not None and self.plan.threshold is not None,
            threshold=self.plan.threshold,
            exit=self.segment - 1,
            confidence=self.confidence,
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
        if self.model.learner is not None:
            self.trail.append((confidence, int(logits.argmax())))
        self.exit = exit
        self.confidence = confidence
        self.logits = logits
        self.energy = None if self.energy is None or joules is None else self.energy + joules
        self.features = features
        self.segment = exit + 1
        self.lease.passed(exit)

    def came_back(self, result: Result, way: Way, took: float) -> None:
        """Keep the answer ``result`` of another node, which it was handed over to by ``way``; both
        ways and the time there ``took`` so many seconds."""
        there = [part for part in result.receipt.parts if part.exits and part.exits[0] > way.exit]
        link = max(0.0, took - sum(part.latency for part in there))
        self.is_away = False
        self.elsewhere = (Part(LINK, (), link, None), *there)
        self.verdict = result.receipt.accuracy
        assert result.probabilities is not None  # the caller has checked the result
        temperature = self.model.bundle.manifest.exits[result.exit].temperature
        least = np.finfo(np.float32).tiny
        self.logits = temperature * np.log(np.maximum(result.probabilities, least))
        self.exit, self.confidence = result.exit, result.probability

    def stayed(self, way: Way, took: float) -> None:
        """It was to go on by ``way``, and has no answer from there after so many seconds."""
        self.is_away = False
        self.elsewhere = (Part(way.peer, (), took, None),)
        self.plans = None
