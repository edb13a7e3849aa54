"""What an exit policy sees of a task that has just reached an exit."""

from __future__ import annotations

from delen.core.bounds import Bounds
from delen.core.plan import ExitView, Plan
from delen.profile.cost_model import CostModel
from policies.plan.planner import Planner


class ExitViewBuilder:
    """Makes the views of one model. ``macs`` are cumulative multiply-adds of its exits."""

    def __init__(self, planner: Planner, costs: CostModel, macs: tuple[int, ...]) -> None:
        self._accuracies = planner.accuracies
        self._useful = planner.useful
        self._costs = costs
        self._macs = macs

    def at(
        self,
        exit: int,
        confidence: float,
        bounds: Bounds,
        plan: Plan,
        elapsed: float,
        energy: float | None,
        batch: int,
    ) -> ExitView:
        """The view at ``exit``, ``elapsed`` seconds and ``energy`` joules after the request's
        arrival, after a run in a ``batch`` of that size."""
        costs = self._costs
        next_exit = self._useful.next(exit, plan.exit)
        time_to_next, energy_at_next = 0.0, energy
        if next_exit is not None:
            time_to_next = costs.latency_upper(exit + 1, next_exit, batch)
            if energy is not None:
                joules = costs.energy_at_most(exit + 1, next_exit, batch)
                energy_at_next = None if joules is None else energy + joules
        return ExitView(
            exit,
            len(self._macs),
            confidence,
            self._accuracies[exit],
            self._macs[exit],
            elapsed,
            energy,
            next_exit,
            time_to_next,
            energy_at_next,
            bounds,
            plan,
        )
