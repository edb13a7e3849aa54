"""Plans that were made before: those for the same bounds and the same depth in time."""

from __future__ import annotations

from dataclasses import replace

from delen.bounds import Bounds
from delen.costs import Costs
from delen.errors import InfeasibleBound, Nearest, Overloaded
from delen.frontier import Choice, Frontier
from delen.plan import Case, Plan
from policies.planner import Planner

_KEPT = 4096


class Plans:
    """The plans of one model. Those that keep their bounds are made once and then kept, since
    of the moment they depend on the deepest exit in time, the energies, the guarantee and the price
    of energy alone.
    """

    def __init__(self, planner: Planner, costs: Costs) -> None:
        self._planner = planner
        self._costs = costs
        self._kept: dict[tuple[object, ...], Plan] = {}

    def plan(
        self, bounds: Bounds, delay: float = 0.0, guaranteed: bool = True, price: float = 0.0
    ) -> Plan:
        """As ``Planner.plan`` at the costs of the moment."""
        deepest = self._deepest(bounds.max_latency, delay)
        key = (bounds, deepest, self._costs.energies(), guaranteed, price)
        kept = self._kept.get(key)
        if kept is not None:
            latency = delay + self._planner.latency(kept.exit, self._costs)
            return replace(kept, latency=latency)
        plan = self._planner.plan(bounds, self._costs, delay, guaranteed, price)
        if plan.infeasible is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[key] = plan
        return plan

    def admit(
        self,
        bounds: Bounds,
        spent: float = 0.0,
        ahead: float = 0.0,
        guaranteed: bool = True,
        best_effort: bool = False,
        price: float = 0.0,
    ) -> Plan:
        """A plan for a request that has ``spent`` seconds and has ``ahead`` seconds of others'
        work before it. That makes it shallower within its bounds before it is refused.

        Overloaded, with the time after which it is worth another try, where it is only the work
        ahead that forbids it; InfeasibleBound where it is the bounds. Neither for a request that
        takes the ``best_effort``.
        """
        plan = self.plan(bounds, spent + ahead, guaranteed, price)
        if plan.infeasible is None or best_effort:
            return plan
        alone = self.plan(bounds, spent, guaranteed, price)
        if alone.infeasible is None:
            raise Overloaded(
                f"the bounds cannot be kept behind {1e3 * ahead:.3g} ms of waiting work",
                retry_after=ahead,
            )
        raise InfeasibleBound(alone.infeasible, alone.nearest or Nearest())

    def unplanned(self) -> Plan:
        """To the deepest exit, however sure an earlier one is: for requests that no plan binds."""
        accuracies, costs = self._planner.accuracies, self._costs
        last = len(accuracies) - 1
        energy = costs.energies()[last]
        return Plan(
            exit=last,
            threshold=None,
            latency=self._planner.latency(last, costs),
            energy=energy,
            expected_energy=energy,
            accuracy=accuracies[last],
            guarantee=None,
            limited_by="depth",
            cases=tuple(Case(None, accuracy, accuracy) for accuracy in accuracies),
            frontier=Frontier((Choice(last, None, energy, accuracies[last]),)),
        )

    def _deepest(self, cap: float | None, delay: float) -> int | None:
        """The deepest useful exit within the cap on latency; None if there is none."""
        useful = self._planner.useful
        if cap is None:
            return useful[-1]
        for exit in reversed(useful):
            if delay + self._planner.latency(exit, self._costs) <= cap:
                return exit
        return None
