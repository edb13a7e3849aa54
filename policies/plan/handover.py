"""Plans of jobs of which another node does a part: up to an exit here, or from one on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from delen.core.bounds import Bounds
from delen.core.fleet_terms import FleetTerms
from delen.core.frontier import Choice, Frontier
from delen.core.plan import UNKNOWN_CASE, Plan
from delen.errors import Nearest
from delen.profile.cost_model import CostModel
from policies.plan.frontier import hull
from policies.plan.planner import NO_FLOORS, NO_SOURCE, Planner, join, raised

_EVER = 1e9
"""Seconds of a cap within which every exit is, on whichever node."""

_EARLIER_UNKNOWN = "the energy of an earlier part of the job is unknown"


@dataclass(frozen=True, slots=True)
class Start:
    """Where a job begins that reached ``exit`` elsewhere, for so many ``joules`` (None: unknown).
    It would have stopped there at a confidence of ``threshold``, None where it would not."""

    exit: int
    threshold: float | None
    joules: float | None


def plan_until(
    planner: Planner,
    costs: CostModel,
    bounds: Bounds,
    last: int,
    delay: float,
    guaranteed: bool,
    waits: Sequence[float] | None,
    terms: FleetTerms,
    lowest: float | None = None,
) -> Plan:
    """A plan that ends at exit ``last``, where another node goes on to the deepest. Its threshold
    is that of the whole network, so that all nodes together keep the floor. The caps hold here: the
    plan is infeasible where ``last`` is not within them. A ceiling of the fleet makes it shallower.
    """
    last = min(last, planner.allowed(terms, None, last))
    is_capped = bounds.max_latency is not None or bounds.max_energy is not None
    asked = replace(bounds, max_latency=_EVER if is_capped else None, max_energy=None)
    whole = planner.plan(asked, costs, 0.0, guaranteed, lowest=lowest)
    latency = planner.arrival(last, costs, delay, waits)
    energies = costs.energies()
    _, limited_by, problem, nearest = planner.within_caps(bounds, {last: latency}, energies)
    if whole.infeasible is not None:
        problem = join(problem, whole.infeasible)
        accuracy = None if whole.nearest is None else whole.nearest.min_accuracy
        caps = nearest or Nearest(bounds.max_latency, None, bounds.max_energy)
        nearest = Nearest(caps.max_latency, accuracy, caps.max_energy)
    choice = Choice(last, whole.threshold, energies[last], planner.accuracies[last])
    return whole._replace(
        exit=last,
        latency=latency,
        energy=energies[last],
        expected_energy=energies[last],
        limited_by=limited_by,
        frontier=Frontier((choice,)),
        infeasible=problem,
        nearest=nearest,
        terms=terms,
    )


def plan_from(
    planner: Planner,
    costs: CostModel,
    bounds: Bounds,
    start: Start,
    delay: float,
    guaranteed: bool,
    price: float,
    waits: Sequence[float] | None,
    terms: FleetTerms,
    lowest: float | None = None,
) -> Plan:
    """A plan for what comes after ``start``: the deepest exit within the caps, or at a ``price``
    above 0, or where the fleet charges for time, without a floor the one that is worth it.

    It keeps the threshold of the node before. A floor holds where that threshold is certified for
    the network which ends at the plan's exit: thresholds are tested from the safest on, so each
    above a certified one is certified too. A job without one ran straight on, as the safest does.
    """
    exits = [exit for exit in planner.useful.exits if exit > start.exit]
    latencies = {exit: _arrival(planner, costs, start, exit, delay, waits) for exit in exits}
    own = {exit: costs.planned_energy(start.exit + 1, exit, 1) for exit in exits}
    totals: list[float | None] = [None] * len(planner.accuracies)
    for exit, joules in own.items():
        totals[exit] = None if joules is None or start.joules is None else start.joules + joules
    is_measured_here = None not in own.values()
    unknown = _EARLIER_UNKNOWN if is_measured_here and start.joules is None else NO_SOURCE
    deepest, limited_by, problem, nearest = planner.within_caps(
        bounds, latencies, totals, unknown=unknown
    )
    allowed = max(exits[0], planner.allowed(terms, bounds.min_accuracy, deepest))
    if allowed < deepest:
        deepest, limited_by = allowed, "fleet"
    threshold = start.threshold if guaranteed and planner.by_threshold else None
    if lowest is not None:
        threshold = raised(threshold, lowest)
    floor, unguaranteed = bounds.min_accuracy, None
    if floor is not None:
        unguaranteed = planner.unguaranteed(guaranteed, lowest)
        found = _floor_problem(planner, start, deepest, floor)
        if found is not None:
            problem = join(problem, found)
            nearest = nearest or Nearest(bounds.max_latency, None, bounds.max_energy)
    tolls = planner.tolls(costs, terms) or (0.0,) * len(totals)
    top = Choice(
        deepest,
        threshold,
        own[deepest],
        planner.accuracy_of(threshold, deepest),
        tolls[deepest] - tolls[start.exit],
    )
    frontier = Frontier((top,))
    if floor is None and is_measured_here:
        cheaper = [
            Choice(e, threshold, own[e], planner.accuracies[e], tolls[e] - tolls[start.exit])
            for e in exits
            if e < deepest
        ]
        frontier = Frontier(tuple(hull(_rising([*cheaper, top]))))
    chosen = frontier.at(price)
    is_kept = floor is not None and problem is None and unguaranteed is None
    by_threshold = planner.by_threshold
    return Plan(
        exit=chosen.exit,
        threshold=threshold,
        latency=latencies[chosen.exit],
        energy=totals[chosen.exit],
        expected_energy=own[chosen.exit],
        accuracy=planner.accuracy_of(threshold, chosen.exit) if by_threshold else None,
        guarantee=planner.settings.guarantee if is_kept else None,
        limited_by=limited_by if chosen == top else "price",
        cases=(
            planner.calibration.cases(threshold, chosen.exit)
            if by_threshold
            else (UNKNOWN_CASE,) * (chosen.exit + 1)
        ),
        frontier=frontier,
        infeasible=problem,
        nearest=nearest,
        price=price,
        unguaranteed=unguaranteed,
        size=planner.size,
        terms=terms,
    )


def _rising(choices: Sequence[Choice]) -> list[Choice]:
    """Those of ``choices``, in order of depth, that take and are worth more than all before."""
    found = [choices[0]]
    for choice in choices[1:]:
        takes_more = (choice.energy or 0.0) > (found[-1].energy or 0.0)
        if takes_more and choice.worth > found[-1].worth:
            found.append(choice)
    return found


def _arrival(
    planner: Planner,
    costs: CostModel,
    start: Start,
    exit: int,
    delay: float,
    waits: Sequence[float] | None,
) -> float:
    """As ``Planner.arrival``, of a job that begins after ``start``."""
    following = planner.useful.next(start.exit, planner.useful.deepest)
    predict = costs.usual if exit == following else costs.latency
    begin = delay if waits is None else max(delay, waits[exit])
    return begin + costs.admitting() + predict(start.exit + 1, exit, 1) + costs.answering()


def _floor_problem(planner: Planner, start: Start, deepest: int, floor: float) -> str | None:
    if not planner.by_threshold:
        return NO_FLOORS
    certified = planner.certify(deepest, floor)
    if certified is None:
        return (
            f"min_accuracy {floor:g} cannot be guaranteed at level {planner.settings.guarantee:g} "
            f"by an exit up to {deepest}"
        )
    if start.threshold is not None and start.threshold < certified.value:
        return (
            f"min_accuracy {floor:g} takes a threshold of {certified.value:g} up to exit {deepest};"
            f" the job went on at one of {start.threshold:g}"
        )
    return None
