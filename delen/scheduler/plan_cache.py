"""Plans, kept for requests with the same bounds and the same depth in time, at one input size or
the best of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import inf

from delen.core.bounds import Bounds
from delen.core.fleet_terms import NO_TERMS, FleetTerms
from delen.core.frontier import Choice, Frontier
from delen.core.handover import Way
from delen.core.plan import Case, LimitedBy, OperatingPoint, Plan
from delen.core.variant import Size
from delen.errors import InfeasibleBound, ModelLoading, Nearest, Overloaded
from delen.profile.cost_model import CostModel
from delen.scheduler.conditions import AT_REST, Conditions
from policies.plan.planner import Planner
from policies.plan.sizes import SizeChoice, pareto

_KEPT = 512
"""Of some 3 kB each."""

_CROWDED = 0.5
"""Much waits where it takes longer than this part of a whole run at the input's own size."""


class PlanSource(ABC):
    """Plans of one model for inputs of one size. ``way`` is that of the last admitted job to
    another node, where there is one."""

    way: Way | None = None

    @abstractmethod
    def prepare(self, bounds: Bounds, terms: FleetTerms = NO_TERMS) -> None:
        """Find the threshold for new ``bounds``, which may take milliseconds, so that plans for
        them are quick where others wait."""

    @abstractmethod
    def plan(self, bounds: Bounds, at: Conditions = AT_REST) -> Plan:
        """As ``Planner.plan`` at the costs of the moment."""

    @abstractmethod
    def unplanned(self, waits: Sequence[float] | None = None, terms: FleetTerms = NO_TERMS) -> Plan:
        """To the deepest exit that there is room for in memory, and that the fleet allows, however
        sure an earlier one is: for requests that no plan binds."""

    @abstractmethod
    def points(self) -> tuple[OperatingPoint, ...]:
        """Every exit as a place to stop, at the costs of the moment."""

    def admit(self, bounds: Bounds, at: Conditions = AT_REST, best_effort: bool = False) -> Plan:
        """A plan for a request that has to wait for others' work and for segments. That makes it
        shallower within its bounds before it is refused.

        Overloaded, with the time after which it is worth another try, where it is only the work
        ahead that forbids it; ModelLoading where it is only that nothing is in memory yet;
        InfeasibleBound where it is the bounds. None of them for a request that takes the
        ``best_effort``.
        """
        plan = self.plan(bounds, at)
        if plan.infeasible is None or best_effort:
            return plan
        idle, waits = at.idle(), at.waits
        alone = self.plan(bounds, idle) if at.ahead else plan
        if alone.infeasible is None:
            raise Overloaded(
                f"the bounds cannot be kept behind {1e3 * at.ahead:.3g} ms of waiting work",
                retry_after=at.ahead,
            )
        if waits is not None and waits[0] > 0:
            loaded = [0.0 if wait < inf else inf for wait in waits]
            if self.plan(bounds, idle._replace(waits=loaded)).infeasible is None:
                raise ModelLoading(
                    f"nothing of the model is in memory yet: that takes another {waits[0]:.2g} s",
                    retry_after=waits[0],
                )
        raise InfeasibleBound(alone.infeasible, alone.nearest or Nearest())


class Plans(PlanSource):
    """Plans at one input size. A plan that keeps its bounds, or that energy or the floor alone
    forbids, is made once and kept while the energies stay: beside these and the bounds it depends
    only on the deepest exits in time and in memory, the guarantee, the price of energy and the
    terms of the fleet.

    ``lowest`` gives the lowest threshold at which a request may stop while inputs are not like the
    calibration data, None while they are.
    """

    def __init__(
        self,
        planner: Planner,
        costs: CostModel,
        lowest: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._planner = planner
        self._costs = costs
        self.lowest = lowest
        self._kept: dict[tuple[object, ...], Plan] = {}
        self._energies = costs.energies()
        self._prepared: set[tuple[Bounds, int | None]] = set()

    def prepare(self, bounds: Bounds, terms: FleetTerms = NO_TERMS) -> None:
        if bounds.min_accuracy is None and (terms.deepest is None or bounds != Bounds()):
            return
        key = bounds, terms.deepest
        if key not in self._prepared:
            self._planner.plan(bounds, self._costs, terms=terms)
            if len(self._prepared) >= _KEPT:
                self._prepared.clear()
            self._prepared.add(key)

    def plan(self, bounds: Bounds, at: Conditions = AT_REST) -> Plan:
        delay, waits, terms = at.delay, at.since, at.terms
        deepest, latency = self._deepest(bounds.max_latency, delay, waits)
        loadable = None if waits is None else sum(wait < inf for wait in waits)
        energies, lowest = self._costs.energies(), self.lowest()
        if energies is not self._energies:
            self._kept.clear()  # they do not come back
            self._energies = energies
        key: tuple[object, ...]
        key = (bounds, deepest, loadable, energies, at.guaranteed, lowest, at.price)
        if terms is not NO_TERMS:
            key = (*key, terms, self._planner.tolls(self._costs, terms))
        kept = self._kept.get(key)
        if kept is not None:
            if kept.exit != deepest:
                latency = self._planner.arrival(kept.exit, self._costs, delay, waits)
            return kept.taking(latency)
        plan = self._planner.plan(
            bounds, self._costs, delay, at.guaranteed, at.price, waits, terms, lowest
        )
        is_by_energy = deepest is not None and bounds.min_accuracy is None
        is_by_floor = deepest == self._planner.useful.deepest and bounds.max_energy is None
        if plan.infeasible is None or is_by_energy or is_by_floor:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[key] = plan
        return plan

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

    @property
    def size(self) -> Size | None:
        """The input size that they are for, None where the model has one."""
        return self._planner.size

    def unplanned(self, waits: Sequence[float] | None = None, terms: FleetTerms = NO_TERMS) -> Plan:
        accuracies, costs = self._planner.accuracies, self._costs
        limited_by: LimitedBy = "depth"
        last = len(accuracies) - 1
        if terms.deepest is not None and terms.deepest < last:
            last, limited_by = terms.deepest, "fleet"
        while waits is not None and waits[last] == inf and last > 0:
            last, limited_by = last - 1, "memory"
        energy = costs.energies()[last]
        return Plan(
            exit=last,
            threshold=None,
            latency=self._planner.arrival(last, costs, 0.0, waits),
            energy=energy,
            expected_energy=energy,
            accuracy=accuracies[last],
            guarantee=None,
            limited_by=limited_by,
            cases=tuple(Case(None, accuracy, accuracy) for accuracy in accuracies),
            frontier=Frontier((Choice(last, None, energy, accuracies[last]),)),
            size=self.size,
            terms=terms,
        )

    def _deepest(
        self, cap: float | None, delay: float, waits: Sequence[float] | None
    ) -> tuple[int | None, float]:
        """The deepest useful exit within the cap on latency, None if there is none, and the seconds
        to an answer from it."""
        planner, latency = self._planner, inf
        for exit in reversed(planner.useful.exits):
            latency = planner.arrival(exit, self._costs, delay, waits)
            if cap is None or latency <= cap:
                return exit, latency
        return None, latency


class BestSize(PlanSource):
    """The best of the plans of several ``sizes``, the input's own first."""

    def __init__(self, sizes: Sequence[Plans]) -> None:
        self._sizes = tuple(sizes)
        self._choice = SizeChoice()

    def prepare(self, bounds: Bounds, terms: FleetTerms = NO_TERMS) -> None:
        for size in self._sizes:
            size.prepare(bounds, terms)

    def plan(self, bounds: Bounds, at: Conditions = AT_REST) -> Plan:
        return self.best([size.plan(bounds, at) for size in self._sizes], bounds, at.waiting)

    def best(self, plans: Sequence[Plan], bounds: Bounds, waiting: float) -> Plan:
        """The best of ``plans``, one a size, while so many seconds of work are ``waiting``."""
        is_crowded = waiting > _CROWDED * self._sizes[0].whole_run()
        is_metered = len({size.meter for size in self._sizes}) == 1
        joules = [plan.expected_energy for plan in plans]
        known = [each for each in joules if each is not None]
        if is_metered and len(known) == len(plans):
            return self._choice.best(plans, known, bounds, True, is_crowded)
        pairs = zip(self._sizes, plans, strict=True)
        seconds = [size.expected_seconds(plan) for size, plan in pairs]
        return self._choice.best(plans, seconds, bounds, False, is_crowded)

    def unplanned(self, waits: Sequence[float] | None = None, terms: FleetTerms = NO_TERMS) -> Plan:
        allowed = [size for size in self._sizes if terms.allows(size.size)]
        plan = (allowed or self._sizes[-1:])[0].unplanned(waits, terms)
        is_own = plan.size == self._sizes[0].size
        return plan if is_own else plan._replace(limited_by="fleet")

    def points(self) -> tuple[OperatingPoint, ...]:
        return pareto([point for size in self._sizes for point in size.points()])
