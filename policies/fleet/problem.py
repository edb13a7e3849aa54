"""Who runs where, as numbers: the problem that the mapping policies solve.

A client of a node may use an operating point there if a frame of it can be sent as often as it is
captured (``payload·fps ≤ bandwidth``), and if the network leaves enough of its deadline (Jellyfish,
RTSS 2022): ``budget = deadline − payload/bandwidth − 2·delay ≥ 2·latency(b)``. b is the batch size
at which the node keeps up, ``Σ fps < b/latency(b)``. A frame waits for the batch before it, and is
then part of one: hence twice.

A daemon serves several points side by side, and the rule grows with it. Each point g in use has its
batch of b_g frames in a cycle of ``T = Σ latency_g(b_g)`` seconds, ``Σ fps_g·T < b_g``: a frame
waits for a cycle at most, so ``budget ≥ T + latency_g(b_g)``. With one point that is Jellyfish's
rule. Frames beyond the largest batch are batches of their own, one after the other.

The value of a mapping is ``Σ rate·accuracy / Σ fps``: a client that is not served counts as 0, and
so do frames that are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf

from policies.fleet.api import Demand, OperatingPoint, Size, Standing

SATURATION = 0.9
"""Share of a link's bandwidth that a client uses which sends one frame of several; beyond it,
frames wait for each other when the bandwidth falls."""

Place = tuple[int, int]
"""A node, and one of its points."""


@dataclass(frozen=True, slots=True)
class NodePoint:
    """A point of ``model`` on one node, its latencies as the node now takes them."""

    model: str
    point: OperatingPoint
    latencies: tuple[float, ...]

    @property
    def key(self) -> tuple[str, int, Size | None]:
        return self.model, self.point.exit, self.point.size


@dataclass(frozen=True, slots=True)
class Problem:
    """``points[n]`` of each node ascend by accuracy. ``budgets[c][n][p]`` are the seconds that
    client c has at that point, −inf where it cannot use it; ``rates[c][n][p]`` the frames a second
    that it would send there, ``fps[c]`` or fewer."""

    nodes: tuple[str, ...]
    clients: tuple[str, ...]
    fps: tuple[float, ...]
    points: tuple[tuple[NodePoint, ...], ...]
    budgets: tuple[tuple[tuple[float, ...], ...], ...]
    rates: tuple[tuple[tuple[float, ...], ...], ...]

    def accuracy(self, place: Place | None) -> float:
        return 0.0 if place is None else self.points[place[0]][place[1]].point.accuracy

    def gain(self, client: int, place: Place | None) -> float:
        """Right answers a second."""
        if place is None:
            return 0.0
        node, point = place
        return self.rates[client][node][point] * self.points[node][point].point.accuracy

    def value(self, mapping: Sequence[Place | None]) -> float:
        total = sum(self.fps)
        if not total:
            return 0.0
        return sum(self.gain(client, place) for client, place in enumerate(mapping)) / total

    def keeps(self, node: int, served: Iterable[tuple[int, int]]) -> bool:
        """Whether ``node`` can serve these clients, each at its point."""
        return self.cycle(node, served) is not None

    def cycle(self, node: int, served: Iterable[tuple[int, int]]) -> float | None:
        """Seconds of the cycle in which ``node`` serves these clients, each at its point; None if
        it cannot."""
        groups: dict[int, list[float]] = {}
        for client, point in served:
            budget, rate = self.budgets[client][node][point], self.rates[client][node][point]
            group = groups.get(point)
            if group is None:
                groups[point] = [rate, budget]
            else:
                group[0] += rate
                group[1] = min(group[1], budget)
        points = self.points[node]
        return _cycle(
            [(rate, budget, points[point].latencies) for point, (rate, budget) in groups.items()]
        )

    def without_skipping(self) -> Problem:
        """The problem in which clients send all their frames."""
        rates = tuple(
            tuple(tuple(rate if rate == fps else 0.0 for rate in node) for node in client)
            for fps, client in zip(self.fps, self.rates, strict=True)
        )
        budgets = tuple(
            tuple(
                tuple(budget if rate else -inf for budget, rate in zip(*node, strict=True))
                for node in zip(*client, strict=True)
            )
            for client in zip(self.budgets, rates, strict=True)
        )
        return replace(self, rates=rates, budgets=budgets)

    def feasible(self, mapping: Sequence[Place | None]) -> bool:
        return all(self.keeps(node, served) for node, served in by_node(self, mapping).items())


def by_node(problem: Problem, mapping: Sequence[Place | None]) -> dict[int, list[tuple[int, int]]]:
    """(client, point) of each node."""
    served: dict[int, list[tuple[int, int]]] = {node: [] for node in range(len(problem.nodes))}
    for client, place in enumerate(mapping):
        if place is not None:
            served[place[0]].append((client, place[1]))
    return served


NamedPlace = tuple[str, str, int, Size | None]
"""A node, and one of its points by model, exit and size: the same in the next period's problem."""


def name_places(problem: Problem, mapping: Sequence[Place | None]) -> dict[str, NamedPlace]:
    """The place of each client that has one, by the client's name."""
    return {
        client: (problem.nodes[place[0]], *problem.points[place[0]][place[1]].key)
        for client, place in zip(problem.clients, mapping, strict=True)
        if place is not None
    }


def find_places(problem: Problem, named: Mapping[str, NamedPlace]) -> list[Place | None]:
    """Where the clients of ``problem`` were; None for those that are new or whose place is gone."""
    places = {
        (name, *point.key): (node, number)
        for node, name in enumerate(problem.nodes)
        for number, point in enumerate(problem.points[node])
    }
    return [places.get(named[client]) if client in named else None for client in problem.clients]


def _cycle(groups: list[tuple[float, float, tuple[float, ...]]]) -> float | None:
    """The shortest cycle in which every group (its rate, its least budget, its latencies) has its
    batch and keeps its budget, found from batches of 1 upwards; None if there is none."""
    cycle = 0.0
    for _, _, latencies in groups:
        cycle += latencies[0]
    while True:
        grown = 0.0
        for rate, budget, latencies in groups:
            frames = int(rate * cycle) + 1  # the least number above rate·cycle
            if frames <= len(latencies):
                latency = latencies[frames - 1]
            else:
                full, rest = divmod(frames, len(latencies))
                latency = full * latencies[-1] + (latencies[rest - 1] if rest else 0.0)
            if cycle + latency > budget:
                return None
            grown += latency
        if grown <= cycle:
            return cycle
        cycle = grown


def make_problem(
    standings: Sequence[Standing], demands: Sequence[Demand], skipping: bool = False
) -> Problem:
    """The problem of ``standings`` that are fresh, in their order. ``skipping``: clients may leave
    out frames where their link carries fewer of that size than they capture."""
    points = tuple(tuple(_points(standing)) for standing in standings)
    rates = tuple(
        tuple(
            tuple(_rate(standing, point, demand, skipping) for point in node_points)
            for standing, node_points in zip(standings, points, strict=True)
        )
        for demand in demands
    )
    budgets = tuple(
        tuple(
            tuple(
                _budget(standing, point, demand) if rate else -inf
                for point, rate in zip(node_points, node_rates, strict=True)
            )
            for standing, node_points, node_rates in zip(standings, points, client, strict=True)
        )
        for demand, client in zip(demands, rates, strict=True)
    )
    return Problem(
        tuple(standing.node for standing in standings),
        tuple(demand.client for demand in demands),
        tuple(demand.fps for demand in demands),
        points,
        budgets,
        rates,
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


def _rate(standing: Standing, point: NodePoint, demand: Demand, skipping: bool) -> float:
    """Frames a second that the client can send there; 0 where it cannot use the point."""
    link, payload = demand.links.get(standing.node), point.point.payload
    if link is None or point.model != demand.model or point.point.accuracy < demand.min_accuracy:
        return 0.0
    if payload * demand.fps <= link.bandwidth:
        return demand.fps
    if not skipping or not link.bandwidth:
        return 0.0
    return demand.fps / ceil(payload * demand.fps / (SATURATION * link.bandwidth))


def _budget(standing: Standing, point: NodePoint, demand: Demand) -> float:
    return demand.deadline - demand.links[standing.node].seconds(point.point.payload)
