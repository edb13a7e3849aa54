"""The default: the best of Jellyfish, enumeration and the last period, improved for exits.

Where there are few nodes and clients, the best mapping with one point a node is enumerated;
elsewhere it is annealed as Jellyfish does. The last period's mapping is a candidate too, and wins a
tie, so clients do not wander without a gain. The best candidate is then improved by what a daemon
of multi-exit networks allows: clients of one node at several exits and sizes side by side, each as
deep as its own budget, where that gains ``WORTH``. So its value is never below that of the
annealing or enumeration that it begins with.

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
from policies.fleet.problem import Place, Problem
from policies.fleet.routes import choices, reachable

EVALUATIONS = 4000
"""Of a node's cycle, for each decision: some 20 ms."""


WORTH = 1.02
"""So many times the value makes up for the longer cycle of several points side by side, in which
answers come later than with one."""


class Default(MappingPolicy):
    name = "default"

    def __init__(self, seed: int = 0, evaluations: int = EVALUATIONS) -> None:
        super().__init__(self.solve, skipping=True)
        self._random = random.Random(seed)
        self._evaluations = evaluations

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
        candidates = [list(last)] if problem.feasible(last) else []
        best = enumerate_mappings(problem) or anneal(problem, last, self._random)
        candidates.append(best)
        best = max(candidates, key=problem.value)
        improved = improve(problem, best, self._evaluations)
        return improved if problem.value(improved) > WORTH * problem.value(best) else best
