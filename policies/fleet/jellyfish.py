"""Jellyfish (Nigade et al., RTSS 2022): one point a node, chosen by annealing, clients by a DP.

*Mapping.* Nodes are filled from the most accurate point down. The clients left are sorted by the
budget that they have at the node's point, largest first. Among the first i of them, client i allows
a largest batch b_i (``2·latency(b_i) ≤ budget_i``) and so a capacity ``b_i/latency(b_i)``; the DP
finds the set with the largest ``Σ fps`` that some capacity holds. Weight and value are both fps, so
the DP is one of reachable sums, kept as bits.

*Selection.* Each node's point moves a step at random: first down (``degrade``) until every client
that could be served is, then up or down (``upgrade``) for accuracy; a worse state is accepted with
``exp(−Δ/T)``, T from 0.0125 to 0.0005 by 0.99 a step (``src/simulation`` of vuhpdc/jellyfish).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import partial

from policies.fleet.mapping import MappingPolicy
from policies.fleet.problem import Place, Problem

HOTTEST, COLDEST, COOLING = 0.0125, 0.0005, 0.99
SERVED = 0.99
"""Share of the clients that could be served from which on accuracy counts."""

_UNIT = 0.5
"""Frames a second of one bit of the DP; rates are rounded up to it."""

Points = tuple[int, ...]
Mapped = list[Place | None]


class Jellyfish(MappingPolicy):
    """Anneals from the points of the last period."""

    name = "jellyfish"

    def __init__(self, seed: int = 0) -> None:
        super().__init__(partial(anneal, chance=random.Random(seed)))


def anneal(problem: Problem, last: Sequence[Place | None], chance: random.Random) -> Mapped:
    """The best mapping that annealing finds."""
    selection = _Selection(problem)
    if not problem.nodes or not selection.could_be_served:
        return [None] * len(problem.clients)
    points = selection.start(last)
    for upgrade in (False, True):
        points = _phase(selection, points, upgrade, chance)
    return selection.map(points)


def _phase(selection: _Selection, start: Points, upgrade: bool, chance: random.Random) -> Points:
    current = best = start
    temperature = HOTTEST
    while temperature > COLDEST:
        if (selection.served(best) >= SERVED) != upgrade:
            break
        steps = (-1, 0, 1) if upgrade else (-1, 0)
        new = selection.step(current, [chance.choice(steps) for _ in current])
        if upgrade and selection.served(new) < SERVED:
            score = -math.inf
        elif upgrade:
            score = selection.value(new)
        else:
            score = selection.served(new)
        reached = selection.value if upgrade else selection.served
        if score > reached(best):
            best = new
        worse = reached(current) - score
        if worse < 0 or math.exp(-worse / temperature) > chance.random():
            current = new
        temperature *= COOLING
    return best


class _Selection:
    """Points of all nodes as states, and the mapping of each, computed once."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._mapper = _Mapper(problem)
        self._mapped: dict[Points, Mapped] = {}
        self.could_be_served = {
            client
            for client, nodes in enumerate(problem.budgets)
            if any(
                budget >= 2 * point.latencies[0]
                for budgets, points in zip(nodes, problem.points, strict=True)
                for budget, point in zip(budgets, points, strict=True)
            )
        }

    def start(self, last: Sequence[Place | None]) -> Points:
        """The highest point of each node that the last period used; the lowest where none was."""
        used = [[place[1] for place in last if place and place[0] == n] for n in self._nodes]
        return tuple(max(points, default=0) for points in used)

    @property
    def _nodes(self) -> range:
        return range(len(self._problem.nodes))

    def step(self, points: Points, steps: Sequence[int]) -> Points:
        most = [len(node) - 1 for node in self._problem.points]
        moved = zip(points, steps, most, strict=True)
        return tuple(min(max(point + step, 0), top) for point, step, top in moved)

    def map(self, points: Points) -> Mapped:
        if points not in self._mapped:
            self._mapped[points] = self._mapper.map(points)
        return self._mapped[points]

    def value(self, points: Points) -> float:
        return self._problem.value(self.map(points))

    def served(self, points: Points) -> float:
        """The share of clients that are served, of those that could be."""
        mapping = self.map(points)
        return (len(mapping) - mapping.count(None)) / len(self.could_be_served)


class _Mapper:
    """The DP. What a point of a node means for each client is computed once."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._able: dict[Place, list[tuple[int, int, int]]] = {}

    def map(self, points: Points) -> Mapped:
        """The clients of each node, whose one point is ``points[node]``."""
        problem = self._problem
        mapping: Mapped = [None] * len(problem.clients)
        order = sorted(enumerate(points), key=problem.accuracy, reverse=True)
        for place in order:
            for client in self._largest_sum(place, mapping):
                mapping[client] = place
        return mapping

    def _largest_sum(self, place: Place, mapping: Mapped) -> list[int]:
        """The clients without a place that one node serves with the largest sum of rates."""
        rows: list[tuple[int, int, int]] = []
        sums, best, best_row = 1, 0, 0
        for client, weight, mask in self._clients_of(place):
            if mapping[client] is not None:
                continue
            rows.append((client, weight, sums))
            with_client = (sums << weight) & mask
            sums |= with_client
            if (largest := with_client.bit_length() - 1) > best:
                best, best_row = largest, len(rows)
        chosen = []
        for client, weight, without in reversed(rows[:best_row]):
            if not without >> best & 1:
                chosen.append(client)
                best -= weight
        return chosen

    def _clients_of(self, place: Place) -> list[tuple[int, int, int]]:
        """(client, weight, mask of the sums within its capacity), the largest budget first."""
        if place not in self._able:
            node, point = place
            latencies = self._problem.points[node][point].latencies
            budgets = [nodes[node][point] for nodes in self._problem.budgets]
            able = []
            for client in sorted(range(len(budgets)), key=lambda client: -budgets[client]):
                if capacity := _capacity(latencies, budgets[client]):
                    weight = math.ceil(self._problem.rates[client][node][point] / _UNIT)
                    able.append((client, weight, (2 << capacity) - 1))
            self._able[place] = able
        return self._able[place]


def _capacity(latencies: Sequence[float], budget: float) -> int:
    """Units of rate that batches within ``budget`` keep up with; they stay below their throughput,
    and end where a larger batch brings no more."""
    most = 0.0
    for size, latency in enumerate(latencies, start=1):
        if 2 * latency > budget or size / latency < most:
            break
        most = size / latency
    return max(0, math.ceil(most / _UNIT) - 1)
