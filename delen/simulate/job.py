"""A request on its way through the segments of a simulated device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from delen.core.dispatch import Task
from delen.core.plan import Plan
from delen.core.result import Reason
from delen.simulate.model import ModelInPlay
from delen.simulate.trace import Arrival


@dataclass(slots=True, eq=False)
class Job:
    """A request that was admitted. ``confidence`` and ``correct`` say how confident each exit would
    be about its ``sample``, and whether it would be right. It has taken ``seconds`` of the device
    so far, and ``joules`` (None: unknown)."""

    arrival: Arrival
    model: ModelInPlay
    plan: Plan
    confidence: Sequence[float]
    correct: Sequence[bool]
    sample: int
    seconds: float = 0.0
    joules: float | None = 0.0

    def task(self, id: int, deadline: float, priority: int) -> Task:
        """The task that the scheduler gets when it arrives."""
        plan = self.plan
        return Task(
            id=id,
            model=self.model.name,
            tenant=self.arrival.tenant,
            arrived=self.arrival.time,
            segment=0,
            last=plan.exit,
            deadline=deadline,
            priority=priority,
            floor=plan.guarantee is not None,
            threshold=plan.threshold,
            joules_left=self.joules_left,
        )

    def spend(self, seconds: float, joules: float | None) -> None:
        """Add its part of a batch that ran."""
        self.seconds += seconds
        self.joules = None if self.joules is None or joules is None else self.joules + joules

    @property
    def joules_left(self) -> float:
        """The rest of its energy cap; inf if it has none, or its energy is unknown."""
        cap = self.arrival.bounds.max_energy
        return inf if cap is None or self.joules is None else cap - self.joules

    def reason_to_stop(self, exit: int, elapsed: float, batch: int) -> Reason | None:
        """Why the exit policy stops it at ``exit``, ``elapsed`` seconds after its arrival and after
        a run in a ``batch`` of that size; None if it goes on."""
        view = self.model.exit_views.at(
            exit, self.confidence[exit], self.arrival.bounds, self.plan, elapsed, self.joules, batch
        )
        return self.model.decide(view).reason

    def as_planned(self, exit: int, confidence: float) -> bool:
        """Whether the guarantee of its floor covers an answer from ``exit``."""
        plan = self.plan
        if plan.guarantee is None:
            return False
        return exit == plan.exit or (plan.threshold is not None and confidence >= plan.threshold)
