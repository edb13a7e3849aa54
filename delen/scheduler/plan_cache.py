"""Plans, kept for requests with the same bounds and the same depth in time, at one input size or
the best of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import inf

from delen.core.bounds import Bounds
from delen.core.frontier import Choice, Frontier
from delen.core.plan import Case, OperatingPoint, Plan
from delen.errors import InfeasibleBound, ModelLoading, Nearest, Overloaded
from delen.profile.cost_model import CostModel
from policies.plan.planner import Planner
from policies.plan.sizes import SizeChoice, pareto

_KEPT = 4096

_CROWDED = 0.5
"""Much waits where it takes longer than this part of a whole run at the input's own size."""


class PlanSource(ABC):
    """Plans of one model for inputs of one size."""

    @abstractmethod
    def prepare(self, bounds: Bounds) -> None:
        """Certify the floor of new ``bounds``, which may take milliseconds, so that plans for them
        are quick where others wait."""

    @abstractmethod
    def plan(
        self,
        bounds: Bounds,
        delay: float = 0.0,
        guaranteed: bool = True,
        price: float = 0.0,
        waits: Sequence[float] | None = None,
    ) -> Plan:
        """As ``Planner.plan`` at the costs of the moment."""

    @abstractmethod
    def unplanned(self, waits: Sequence[float] | None = None) -> Plan:
        """To the deepest exit that there is room for in memory, however sure an earlier one is:
        for requests that no plan binds."""

    @abstractmethod
    def points(self) -> tuple[OperatingPoint, ...]:
        """Every exit as a place to stop, at the costs of the moment."""

    def admit(
        self,
        bounds: Bounds,
        spent: float = 0.0,
        ahead: float = 0.0,
        guaranteed: bool = True,
        best_effort: bool = False,
        price: float = 0.0,
        waits: Sequence[float] | None = None,
    ) -> Plan:
        """A plan for a request that has ``spent`` seconds, has ``ahead`` seconds of others' work
        before it, and has to wait for segments as ``waits`` says. It is as deep as if nothing
        waited: the dispatch policy leaves out what there is no time for.

        Overloaded, with the time after which it is worth another try, where behind the work ahead
        it would typically be too late even for its first answer, or, with a floor, for its plan's
        end; ModelLoading where it is only that nothing is in memory yet; InfeasibleBound where it
        is the bounds. None of them for a request that takes the ``best_effort``.
        """
        since = None if waits is None else [spent + wait if wait else 0.0 for wait in waits]
        plan = self._plan_beside(bounds, spent, ahead, guaranteed, price, since)
        if plan.infeasible is None or best_effort:
            made_at = self._made_at(plan)
            cap, delay = bounds.max_latency, spent + ahead
            if (
                cap is not None
                and not best_effort
                and made_at.first_answer(plan, bounds, delay) > cap
            ):
                raise Overloaded(
                    f"the bounds cannot be kept behind {1e3 * ahead:.3g} ms of waiting work",
                    retry_after=ahead,
                )
            return made_at.delayed(plan, delay, since) if ahead else plan
        if waits is not None and waits[0] > 0:
            loaded = [0.0 if wait < inf else inf for wait in waits]
            if self.plan(bounds, spent, guaranteed, price, loaded).infeasible is None:
                raise ModelLoading(
                    f"nothing of the model is in memory yet: that takes another {waits[0]:.2g} s",
                    retry_after=waits[0],
                )
        raise InfeasibleBound(plan.infeasible, plan.nearest or Nearest())

    @abstractmethod
    def _plan_beside(
        self,
        bounds: Bounds,
        spent: float,
        ahead: float,
        guaranteed: bool,
        price: float,
        waits: Sequence[float] | None,
    ) -> Plan:
        """A plan as if nothing waited, at the size that is best behind ``ahead`` seconds of others'
        work."""

    @abstractmethod
    def _made_at(self, plan: Plan) -> Plans:
        """The plans of the size of ``plan``."""


class Plans(PlanSource):
    """Plans at one input size. A plan that keeps its bounds is made once and kept: beside the
    bounds it depends only on the deepest exits in time and in memory, the energies, the guarantee
    and the price of energy.
    """

    def __init__(self, planner: Planner, costs: CostModel) -> None:
        self.size = planner.size
        self._planner = planner
        self._costs = costs
        self._kept: dict[tuple[object, ...], Plan] = {}
        self._prepared: set[Bounds] = set()

    def prepare(self, bounds: Bounds) -> None:
        if bounds.min_accuracy is not None and bounds not in self._prepared:
            self._planner.plan(bounds, self._costs)
            if len(self._prepared) >= _KEPT:
                self._prepared.clear()
            self._prepared.add(bounds)

    def plan(
        self,
        bounds: Bounds,
        delay: float = 0.0,
        guaranteed: bool = True,
        price: float = 0.0,
        waits: Sequence[float] | None = None,
    ) -> Plan:
        deepest, latency = self._deepest(bounds.max_latency, delay, waits)
        loadable = None if waits is None else sum(wait < inf for wait in waits)
        key = (bounds, deepest, loadable, self._costs.energies(), guaranteed, price)
        kept = self._kept.get(key)
        if kept is not None:
            if kept.exit != deepest:
                latency = self._planner.arrival(kept.exit, self._costs, delay, waits)
            return kept.taking(latency)
        plan = self._planner.plan(bounds, self._costs, delay, guaranteed, price, waits)
        if plan.infeasible is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[key] = plan
        return plan

    def _plan_beside(
        self,
        bounds: Bounds,
        spent: float,
        ahead: float,
        guaranteed: bool,
        price: float,
        waits: Sequence[float] | None,
    ) -> Plan:
        return self.plan(bounds, spent, guaranteed, price, waits)

    def _made_at(self, plan: Plan) -> Plans:
        return self

    def first_answer(self, plan: Plan, bounds: Bounds, delay: float) -> float:
        """Seconds until a request typically has its first answer, or its floor, after ``delay``."""
        exit = plan.exit if bounds.min_accuracy is not None else self._planner.useful.first
        return delay + self._costs.typical(0, exit, 1)

    def delayed(self, plan: Plan, delay: float, waits: Sequence[float] | None) -> Plan:
        """``plan`` with the latency that is predicted after ``delay``."""
        return plan.taking(self._planner.arrival(plan.exit, self._costs, delay, waits))

    def points(self) -> tuple[OperatingPoint, ...]:
        return self._planner.points(self._costs)

    def expected_seconds(self, plan: Plan) -> float:
        """What ``plan`` takes of the device, at the median: less where inputs like those of the
        calibration are confident before its end."""
        if plan.threshold is None:
            return self._costs.typical(0, plan.exit, 1)
        shares = self._planner.calibration.exit_shares(plan.threshold, plan.exit)
        return sum(
            share * self._costs.typical(0, exit, 1) for exit, share in enumerate(shares) if share
        )

    def whole_run(self) -> float:
        """Seconds to an answer from the deepest exit, alone on the device."""
        return self._planner.latency(self._planner.useful.deepest, self._costs)

    @property
    def meter(self) -> tuple[str | None, str | None]:
        """By what, and of what, joules are said: those of two meters cannot be compared."""
        return self._costs.energy.source, self._costs.energy.scope

    def unplanned(self, waits: Sequence[float] | None = None) -> Plan:
        accuracies, costs = self._planner.accuracies, self._costs
        last = len(accuracies) - 1
        while waits is not None and waits[last] == inf and last > 0:
            last -= 1
        energy = costs.energies()[last]
        return Plan(
            exit=last,
            threshold=None,
            latency=self._planner.arrival(last, costs, 0.0, waits),
            energy=energy,
            expected_energy=energy,
            accuracy=accuracies[last],
            guarantee=None,
            limited_by="depth" if last == len(accuracies) - 1 else "memory",
            cases=tuple(Case(None, accuracy, accuracy) for accuracy in accuracies),
            frontier=Frontier((Choice(last, None, energy, accuracies[last]),)),
            size=self._planner.size,
        )

    def _deepest(
        self, cap: float | None, delay: float, waits: Sequence[float] | None
    ) -> tuple[int | None, float]:
        """The deepest useful exit within the cap on latency (the first if that typically is), None
        if there is none; and the seconds to an answer from it."""
        planner, latency = self._planner, inf
        for exit in reversed(planner.useful.exits):
            latency = planner.arrival(exit, self._costs, delay, waits)
            if cap is None or latency <= cap:
                return exit, latency
        if cap is not None and planner.first_typically(self._costs, delay, waits) <= cap:
            return planner.useful.first, latency
        return None, latency


class BestSize(PlanSource):
    """The best of the plans of several ``sizes``, the input's own first."""

    def __init__(self, sizes: Sequence[Plans]) -> None:
        self._sizes = tuple(sizes)
        self._choice = SizeChoice()

    def prepare(self, bounds: Bounds) -> None:
        for size in self._sizes:
            size.prepare(bounds)

    def plan(
        self,
        bounds: Bounds,
        delay: float = 0.0,
        guaranteed: bool = True,
        price: float = 0.0,
        waits: Sequence[float] | None = None,
    ) -> Plan:
        made = [size.plan(bounds, delay, guaranteed, price, waits) for size in self._sizes]
        return self.best(made, bounds)

    def _plan_beside(
        self,
        bounds: Bounds,
        spent: float,
        ahead: float,
        guaranteed: bool,
        price: float,
        waits: Sequence[float] | None,
    ) -> Plan:
        delay = spent + ahead
        made = [size.plan(bounds, delay, guaranteed, price, waits) for size in self._sizes]
        best = self._made_at(self.best(made, bounds, ahead))
        return best.plan(bounds, spent, guaranteed, price, waits)

    def _made_at(self, plan: Plan) -> Plans:
        return next(each for each in self._sizes if each.size == plan.size)

    def best(self, plans: Sequence[Plan], bounds: Bounds, ahead: float = 0.0) -> Plan:
        """The best of ``plans``, one a size, behind ``ahead`` seconds of others' work."""
        is_crowded = ahead > _CROWDED * self._sizes[0].whole_run()
        is_metered = len({size.meter for size in self._sizes}) == 1
        joules = [plan.expected_energy for plan in plans]
        known = [each for each in joules if each is not None]
        if is_metered and len(known) == len(plans):
            return self._choice.best(plans, known, bounds, True, is_crowded)
        pairs = zip(self._sizes, plans, strict=True)
        seconds = [size.expected_seconds(plan) for size, plan in pairs]
        return self._choice.best(plans, seconds, bounds, False, is_crowded)

    def unplanned(self, waits: Sequence[float] | None = None) -> Plan:
        return self._sizes[0].unplanned(waits)

    def points(self) -> tuple[OperatingPoint, ...]:
        return pareto([point for size in self._sizes for point in size.points()])
