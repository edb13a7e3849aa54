"""What mapping policies share: they solve the problem once a period, and route by the solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from policies.fleet.api import Ceiling, Demand, Directive, Route, Standing
from policies.fleet.freshness import fresh
from policies.fleet.problem import (
    NamedPlace,
    Place,
    Problem,
    by_node,
    find_places,
    make_problem,
    name_places,
)
from policies.fleet.routes import LEASE, Choice, best_choice, choices, reachable


@dataclass(frozen=True, slots=True)
class Assigned:
    """A client's node and ceiling, the seconds that are expected to pass there, and its rate."""

    node: str
    ceiling: Ceiling
    expected: float
    rate: float = inf


Solve: TypeAlias = Callable[[Problem, Sequence[Place | None]], Sequence[Place | None]]
"""A place for each client of the problem, from what is left of the last solution."""


class MappingPolicy:
    """Keeps what ``solve`` said last. A client that it does not know, or whose node is gone, goes
    where its answer is soonest until the next time; a client that is left out has no route. With
    ``skipping`` clients may leave out frames."""

    name: str

    def __init__(self, solve: Solve, skipping: bool = False) -> None:
        self._solve = solve
        self._skipping = skipping
        self._assigned: dict[str, Assigned | None] = {}
        self._places: dict[str, NamedPlace] = {}

    def coordinate(
        self, standings: Sequence[Standing], demands: Sequence[Demand], now: float
    ) -> Sequence[Directive]:
        nodes = fresh(standings, now)
        problem = make_problem(nodes, demands, self._skipping)
        mapping = self._solve(problem, find_places(problem, self._places))
        self._places, self._assigned = name_places(problem, mapping), {}
        ceilings: dict[str, dict[str, Ceiling]] = {name: {} for name in problem.nodes}
        resident: dict[str, set[str]] = {name: set() for name in problem.nodes}
        served = by_node(problem, mapping)
        cycles = {node: problem.cycle(node, clients) or 0.0 for node, clients in served.items()}
        for client, (demand, place) in enumerate(zip(demands, mapping, strict=True)):
            if place is None:
                self._assigned[demand.client] = None
                continue
            node, chosen = problem.nodes[place[0]], problem.points[place[0]][place[1]]
            ceiling = Ceiling(chosen.point.exit, chosen.point.size)
            expected = cycles[place[0]] + chosen.latencies[0]
            rate = problem.rates[client][place[0]][place[1]]
            self._assigned[demand.client] = Assigned(
                node, ceiling, expected, inf if rate == demand.fps else rate
            )
            known = ceilings[node].get(demand.tenant)
            ceilings[node][demand.tenant] = ceiling if known is None else _higher(known, ceiling)
            resident[node].add(demand.model)
        return [
            Directive(name, now, LEASE, ceilings[name], resident=tuple(sorted(resident[name])))
            for name in problem.nodes
        ]

    def route(self, request: Demand, standings: Sequence[Standing], now: float) -> Route | None:
        nodes = reachable(fresh(standings, now), request)
        assigned = self._assigned.get(request.client, _UNKNOWN)
        if assigned is None:
            return None
        for standing in nodes:
            if standing.node == assigned.node:
                ceiling = assigned.ceiling
                left = max((each.left for each in _allowed(standing, request, ceiling)), default=0)
                if left <= 0:
                    return None
                return Route(standing.node, LEASE, left, ceiling, assigned.expected, assigned.rate)
        found = [choice for node in nodes if (choice := best_choice(node, request)) is not None]
        soonest = min(found, key=lambda choice: choice.takes - choice.left, default=None)
        return None if soonest is None else soonest.route()


_UNKNOWN = Assigned("", Ceiling(0), 0.0)


def _allowed(standing: Standing, request: Demand, ceiling: Ceiling) -> list[Choice]:
    return [each for each in choices(standing, request) if ceiling.allows(each.point)]


def _higher(one: Ceiling, other: Ceiling) -> Ceiling:
    """What allows both."""
    exit = max(one.exit, other.exit)
    if one.size is None or other.size is None:
        return Ceiling(exit)
    return Ceiling(exit, max(one.size, other.size))
