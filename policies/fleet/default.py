"""The default: Jellyfish's mapping, or one that is worth leaving it for.

Jellyfish's annealing goes on from period to period as it does alone. Beside it stand the last
period's mapping and, where there are few nodes and clients, the best one with one point a node,
enumerated. The best of these is improved by what a daemon of multi-exit networks allows: clients of
one node at several exits and sizes side by side, each as deep as its own budget. A mapping is left
only for one that is worth ``WORTH`` times as much: links are known from the last second, and a gain
below that is not seen in what is answered.

A client whose link cannot carry all its frames at a good size may send one of several, at a rate
that its route says: accuracies rise faster with size than frames are lost. One that has no place
sends the smallest frames, where those can be in time: its node refuses what it has no time for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from policies.fleet.api import Demand, Route, Standing
from policies.fleet.exact import enumerate_mappings
from policies.fleet.freshness import fresh
from policies.fleet.improve import improve
from policies.fleet.jellyfish import anneal
from policies.fleet.mapping import MappingPolicy
from policies.fleet.problem import NamedPlace, Place, Problem, find_places, name_places
from policies.fleet.routes import choices, reachable

EVALUATIONS = 4000
"""Of a node's cycle, for each decision: some 20 ms."""

WORTH = 1.05
"""So many times the value makes up for what nobody knows of links, for a switch, and for the longer
cycle of several points side by side."""


class Default(MappingPolicy):
    name = "default"

    def __init__(self, seed: int = 0, evaluations: int = EVALUATIONS) -> None:
        super().__init__(self.solve, skipping=True)
        self._random = random.Random(seed)
        self._evaluations = evaluations
        self._annealed: dict[str, NamedPlace] = {}

    def route(self, request: Demand, standings: Sequence[Standing], now: float) -> Route | None:
        route = super().route(request, standings, now)
        if route is not None:
            return route
        found = [
            choice
            for node in reachable(fresh(standings, now), request)
            for choice in choices(node, request)
            if choice.on_time
        ]
        least = min(found, key=lambda choice: (choice.point.payload, choice.takes), default=None)
        return None if least is None else least.route()

    def solve(self, problem: Problem, last: Sequence[Place | None]) -> list[Place | None]:
        before = find_places(problem, self._annealed)
        annealed = anneal(problem.without_skipping(), before, self._random)
        self._annealed = name_places(problem, annealed)
        found = [list(last)] if problem.feasible(last) else []
        if (enumerated := enumerate_mappings(problem)) is not None:
            found.append(enumerated)
        best = _worth_more(problem, annealed, max([*found, annealed], key=problem.value))
        return _worth_more(problem, best, improve(problem, best, self._evaluations))


def _worth_more(
    problem: Problem, present: list[Place | None], other: list[Place | None]
) -> list[Place | None]:
    return other if problem.value(other) > WORTH * problem.value(present) else present
