"""The best mapping with one point a node, by enumeration: what Jellyfish's annealing looks for.

Every set of clients has a best point on every node, among those that keep all their budgets. A
point that a set can use its subsets can use, so the points are found from small sets to large ones.
What the nodes serve together is then enumerated node by node over all disjoint sets: ``3^C`` steps
a node, for few clients and up to four nodes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from policies.fleet.jellyfish import anneal
from policies.fleet.mapping import MappingPolicy
from policies.fleet.problem import Place, Problem

MOST_NODES = 4
MOST_CLIENTS = 8

_NONE = -1


class Exact(MappingPolicy):
    """Enumerates; where there are more nodes or clients than it can, it anneals as Jellyfish."""

    name = "exact"

    def __init__(self, seed: int = 0) -> None:
        super().__init__(self._enumerate)
        self._random = random.Random(seed)

    def _enumerate(self, problem: Problem, last: Sequence[Place | None]) -> list[Place | None]:
        return enumerate_mappings(problem) or anneal(problem, last, self._random)


def enumerate_mappings(problem: Problem) -> list[Place | None] | None:
    """The best mapping; None where there are too many nodes or clients."""
    if len(problem.nodes) > MOST_NODES or len(problem.clients) > MOST_CLIENTS:
        return None
    everyone = 1 << len(problem.clients)
    gained = [0.0] * everyone
    steps: list[tuple[list[int], list[int]]] = []
    for node in range(len(problem.nodes)):
        points, values = _best_points(problem, node, everyone)
        new, chosen = list(gained), [0] * everyone
        for members in range(1, everyone):
            part = members
            while part:
                if (value := gained[members ^ part] + values[part]) > new[members]:
                    new[members], chosen[members] = value, part
                part = (part - 1) & members
        steps.append((chosen, points))
        gained = new
    mapping: list[Place | None] = [None] * len(problem.clients)
    members = everyone - 1
    for node in reversed(range(len(problem.nodes))):
        chosen, points = steps[node]
        part = chosen[members]
        for client in range(len(problem.clients)):
            if part >> client & 1 and points[part] != _NONE:
                mapping[client] = (node, points[part])
        members ^= part
    return mapping


def _best_points(problem: Problem, node: int, everyone: int) -> tuple[list[int], list[float]]:
    """The best point of each set of clients on ``node``, which is _NONE where none will do, and
    what the set gains there."""
    every = list(range(len(problem.points[node])))
    able = [every] * everyone
    best, values = [_NONE] * everyone, [0.0] * everyone
    for members in range(1, everyone):
        clients = [client for client in range(len(problem.clients)) if members >> client & 1]
        fewer = [able[members ^ (1 << client)] for client in clients]
        able[members] = [
            point
            for point in min(fewer, key=len)
            if problem.keeps(node, [(client, point) for client in clients])
        ]
        for point in able[members]:
            gain = sum(problem.gain(client, (node, point)) for client in clients)
            if gain > values[members]:
                best[members], values[members] = point, gain
    return best, values
