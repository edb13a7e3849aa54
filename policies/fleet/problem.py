"""Who runs where, as numbers: the problem that the mapping policies solve.

A client of a node may use an operating point there if a frame of it can be sent as often as it is
captured (``payload·fps ≤ bandwidth``), and if the network leaves enough of its deadline (Jellyfish,
RTSS 2022): ``budget = deadline − payload/bandwidth − 2·delay ≥ 2·latency(b)``. b is the batch size
at which the node keeps up, ``Σ fps < b/latency(b)``. A frame waits for the batch before it, and is
then part of one: hence twice.

A daemon serves several points side by side, and the rule grows with it. Each point g in use has one
batch of size b_g in a cycle of ``T = Σ latency_g(b_g)`` seconds, where ``Σ fps_g·T < b_g``: a frame
waits for a cycle at most, so ``budget ≥ T + latency_g(b_g)``. With one point that is Jellyfish's
rule. The value of a mapping is ``Σ fps·accuracy / Σ fps``; a client that is not served counts as 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from policies.fleet.api import Demand, OperatingPoint, Standing

Place = tuple[int, int]
"""A node, and one of its points."""


@dataclass(frozen=True, slots=True)
class NodePoint:
    """A point of ``model`` on one node, its latencies as the node now takes them."""

    model: str
    point: OperatingPoint
    latencies: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """``points[n]`` of each node ascend by accuracy; ``budgets[c][n][p]`` are the seconds that
    client c has at that point, −inf where it cannot use it."""

    nodes: tuple[str, ...]
    clients: tuple[str, ...]
    fps: tuple[float, ...]
    points: tuple[tuple[NodePoint, ...], ...]
    budgets: tuple[tuple[tuple[float, ...], ...], ...]

    def accuracy(self, place: Place | None) -> float:
        return 0.0 if place is None else self.points[place[0]][place[1]].point.accuracy

    def value(self, mapping: Sequence[Place | None]) -> float:
        total = sum(self.fps)
        if not total:
            return 0.0
        gained = sum(
            fps * self.accuracy(place) for fps, place in zip(self.fps, mapping, strict=True)
        )
        return gained / total

    def keeps(self, node: int, served: Iterable[tuple[int, int]]) -> bool:
        """Whether ``node`` can serve these clients, each at its point."""
        groups: dict[int, list[float]] = {}
        for client, point in served:
            budget = self.budgets[client][node][point]
            group = groups.get(point)
            if group is None:
                groups[point] = [self.fps[client], budget]
            else:
                group[0] += self.fps[client]
                group[1] = min(group[1], budget)
        points = self.points[node]
        return not groups or _fits(
            [(rate, budget, points[point].latencies) for point, (rate, budget) in groups.items()]
        )

    def feasible(self, mapping: Sequence[Place | None]) -> bool:
        return all(self.keeps(node, served) for node, served in by_node(self, mapping).items())


def by_node(problem: Problem, mapping: Sequence[Place | None]) -> dict[int, list[tuple[int, int]]]:
    """(client, point) of each node."""
    served: dict[int, list[tuple[int, int]]] = {node: [] for node in range(len(problem.nodes))}
    for client, place in enumerate(mapping):
        if place is not None:
            served[place[0]].append((client, place[1]))
    return served


def _fits(groups: list[tuple[float, float, tuple[float, ...]]]) -> bool:
    """Whether a cycle exists in which every group (its rate, its least budget, its latencies) has
    its batch and keeps its budget: the shortest one, found from batches of 1 upwards."""
    cycle = 0.0
    for _, _, latencies in groups:
        cycle += latencies[0]
    while True:
        grown = 0.0
        for rate, budget, latencies in groups:
            batch = int(rate * cycle)  # batch + 1 is the least size above rate·cycle
            if batch >= len(latencies):
                return False
            latency = latencies[batch]
            if cycle + latency > budget:
                return False
            grown += latency
        if grown <= cycle:
            return True
        cycle = grown


def make_problem(standings: Sequence[Standing], demands: Sequence[Demand]) -> Problem:
    """The problem of ``standings`` that are fresh, in their order."""
    points = tuple(tuple(_points(standing)) for standing in standings)
    budgets = tuple(
        tuple(
            tuple(_budget(standing, point, demand) for point in node_points)
            for standing, node_points in zip(standings, points, strict=True)
        )
        for demand in demands
    )
    return Problem(
        tuple(standing.node for standing in standings),
        tuple(demand.client for demand in demands),
        tuple(demand.fps for demand in demands),
        points,
        budgets,
    )


def _points(standing: Standing) -> list[NodePoint]:
    """Those of all models in memory, without any that another one of its model beats in all."""
    kept = []
    for model in standing.models:
        for point in model.points:
            if not any(_beats(other, point) for other in model.points):
                latencies = tuple(standing.slowdown * each for each in point.latencies)
                kept.append(NodePoint(model.name, point, latencies))
    return sorted(kept, key=lambda each: (each.point.accuracy, each.latencies[0]))


def _beats(one: OperatingPoint, other: OperatingPoint) -> bool:
    costs = one.latency <= other.latency and one.payload <= other.payload
    better = (one.accuracy, -one.latency, -one.payload) > (
        other.accuracy,
        -other.latency,
        -other.payload,
    )
    return costs and one.accuracy >= other.accuracy and better


def _budget(standing: Standing, point: NodePoint, demand: Demand) -> float:
    link = demand.links.get(standing.node)
    if link is None or point.model != demand.model:
        return -inf
    if point.point.accuracy < demand.min_accuracy:
        return -inf
    if point.point.payload * demand.fps > link.bandwidth:
        return -inf
    return demand.deadline - link.seconds(point.point.payload)
