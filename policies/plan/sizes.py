"""Which of a model's input sizes a request runs at: the choice among the plans of each size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import numpy as np

from delen.core.bounds import Bounds
from delen.core.frontier import Choice, Frontier
from delen.core.plan import LimitedBy, OperatingPoint, Plan
from delen.core.variant import format_size
from policies.plan.frontier import hull

_KEPT = 256
"""How many joined frontiers are kept."""


def level_of_each(level: float, sizes: int) -> float:
    """The level at which floors of each of so many ``sizes`` are certified, so that those of all
    hold together at ``level`` (a union bound): whoever chooses among them chooses by their tables.
    """
    return level if sizes == 1 else 1 - (1 - level) / sizes


class SizeChoice:
    """Chooses among plans for the same bounds, one for each size that the input may be scaled to,
    the input's own first. Safe for many threads.

    Caps alone: the most accurate plan that keeps them. A floor: the plan that keeps it at least
    cost. No bound: the input's own size, for a smaller one would lose accuracy. A price of energy
    chooses from what all sizes offer, and never what is dearer than without a price. Where no size
    keeps the bounds, the best effort is that which comes nearest to keeping them.

    The fleet's ceiling leaves out larger sizes, unless a floor needs them; the smallest always
    remains. Where the fleet charges for seconds, worth takes the place of accuracy.

    While much waits (``is_crowded``) the first size that keeps the bounds is taken: batches are of
    one size, and larger where requests do not choose different ones.
    """

    def __init__(self) -> None:
        self._joined: dict[tuple[Frontier, ...], tuple[Frontier, tuple[int, ...]]] = {}

    def best(
        self,
        plans: Sequence[Plan],
        costs: Sequence[float],
        bounds: Bounds,
        is_priced: bool,
        is_crowded: bool,
    ) -> Plan:
        """The plan to follow, by what each of ``plans`` is expected to cost, in any one unit. Their
        frontiers are joined if it ``is_priced``: they say joules of one kind."""
        allowed = _allowed(plans, bounds)
        kept = [index for index in allowed if plans[index].infeasible is None]
        if not kept:
            return _nearest([plans[index] for index in allowed], bounds)
        limited_by = _limit(plans[0], bounds) if 0 in allowed else "fleet"
        if is_crowded:
            return plans[kept[0]]._replace(limited_by=limited_by)
        if bounds.min_accuracy is not None:
            return plans[min(kept, key=costs.__getitem__)]
        is_tolled = plans[0].terms.per_second > 0
        own_first = kept[:1] if bounds == Bounds() and not is_tolled else kept
        top = max(own_first, key=lambda index: (plans[index].frontier.most.worth, -costs[index]))
        if is_tolled and _most(plans[top]) < max(_most(plans[index]) for index in kept):
            limited_by = "price"
        if not is_priced or len(kept) == 1:
            return plans[top]._replace(limited_by=limited_by)
        order = (top, *(index for index in kept if index != top))
        frontier, owners = self._join(tuple(plans[index].frontier for index in order))
        choice = frontier.at(plans[top].price)
        owner = order[owners[frontier.choices.index(choice)]]
        if choice != frontier.most:
            limited_by = "price"
        return plans[owner]._replace(frontier=frontier, limited_by=limited_by)

    def _join(self, frontiers: tuple[Frontier, ...]) -> tuple[Frontier, tuple[int, ...]]:
        """The frontier of the choices of all ``frontiers``, up to that of most worth of the first,
        and to which of them each of its choices belongs."""
        known = self._joined.get(frontiers)
        if known is not None:
            return known
        top = frontiers[0].most
        offers = [
            (choice, index)
            for index, frontier in enumerate(frontiers)
            for choice in frontier.choices
            if choice is top or _is_less(choice, top)
        ]
        offers.sort(key=lambda offer: (offer[0].energy or 0.0, -offer[0].worth))
        best = np.maximum.accumulate([choice.worth for choice, _ in offers])
        rising = [
            offer
            for offer, before in zip(offers, [-inf, *best.tolist()], strict=False)
            if offer[0].worth > before
        ]
        owners = dict(rising)
        joined = Frontier(tuple(hull([choice for choice, _ in rising])))
        made = joined, tuple(owners[choice] for choice in joined.choices)
        if len(self._joined) >= _KEPT:
            self._joined.clear()
        self._joined[frontiers] = made
        return made


def _allowed(plans: Sequence[Plan], bounds: Bounds) -> Sequence[int]:
    """Those of ``plans`` for the sizes up to the fleet's ceiling; all where it leaves none that
    keeps a floor."""
    allowed = [index for index, plan in enumerate(plans) if plan.terms.allows(plan.size)]
    allowed = allowed or [len(plans) - 1]
    if bounds.min_accuracy is None or any(plans[index].infeasible is None for index in allowed):
        return allowed
    return range(len(plans))


def _most(plan: Plan) -> float:
    return plan.frontier.most.accuracy


def _is_less(choice: Choice, top: Choice) -> bool:
    """Whether ``choice`` is cheaper than ``top`` and worth less."""
    if choice.energy is None or top.energy is None:
        return False
    return choice.energy < top.energy and choice.worth < top.worth


def _limit(plan: Plan, bounds: Bounds) -> LimitedBy:
    """What limits ``plan``, or the cap that it does not keep."""
    if plan.infeasible is None:
        return plan.limited_by
    cap = bounds.max_latency
    return "latency" if cap is not None and plan.latency > cap else "energy"


def _nearest(plans: Sequence[Plan], bounds: Bounds) -> Plan:
    """Of plans of which none keeps the ``bounds``: the one of the highest floor within the caps, or
    else the one that exceeds them least."""

    def rank(plan: Plan) -> tuple[float, float]:
        over = max(
            plan.latency / (bounds.max_latency or inf),
            (plan.energy or 0.0) / (bounds.max_energy or inf),
        )
        floor = None if plan.nearest is None else plan.nearest.min_accuracy
        return max(over, 1.0), -(floor or _most(plan))

    plan = min(plans, key=rank)
    assert plan.size is not None
    return plan._replace(infeasible=f"{plan.infeasible} (at {format_size(plan.size)} pixels)")


def pareto(points: Sequence[OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """``points`` of several sizes, smallest first; one is dominated also where another size gives
    an answer that is at least as accurate and comes no later."""

    def is_dominated(point: OperatingPoint) -> bool:
        return point.dominated or any(
            other.size != point.size
            and other.accuracy >= point.accuracy
            and other.latency <= point.latency
            and (other.accuracy, -other.latency) != (point.accuracy, -point.latency)
            for other in points
        )

    marked = [replace(point, dominated=is_dominated(point)) for point in points]
    return tuple(sorted(marked, key=lambda point: (point.size or (), point.exit)))
