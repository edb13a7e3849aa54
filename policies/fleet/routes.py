"""A route to one node: the best operating point that is on time there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from policies.fleet.api import Ceiling, Demand, OperatingPoint, Route, Standing

LEASE = 3.0
"""Seconds for which routes and directives hold: what a client does without its hub."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An operating point of a node for one client: ``left`` seconds remain at the node once the
    network has had its part of the deadline, and it ``takes`` so many, waiting included."""

    standing: Standing
    point: OperatingPoint
    left: float
    takes: float

    @property
    def on_time(self) -> bool:
        return self.takes <= self.left

    @property
    def cost(self) -> float:
        """Seconds of the node that a sample takes."""
        return self.standing.slowdown * self.point.latency

    def route(self, lease: float = LEASE) -> Route:
        ceiling = Ceiling(self.point.exit, self.point.size)
        return Route(self.standing.node, lease, self.left, ceiling, self.takes)


def reachable(standings: Iterable[Standing], demand: Demand) -> list[Standing]:
    """The nodes that serve the client's model as accurately as it asks and that its links lead
    to."""
    return [
        standing
        for standing in standings
        if (model := standing.model(demand.model)) is not None
        and any(point.accuracy >= demand.min_accuracy for point in model.points)
        and (link := demand.links.get(standing.node)) is not None
        and link.bandwidth > 0
    ]


def choices(standing: Standing, demand: Demand) -> Iterator[Choice]:
    """Every operating point of a reachable node that is accurate enough and that the network leaves
    any time for."""
    model, link = standing.model(demand.model), demand.links[standing.node]
    assert model is not None
    waits = standing.backlog + (0.0 if model.resident else model.load)
    for point in model.points:
        left = demand.deadline - link.seconds(point.payload)
        if left > 0 and point.accuracy >= demand.min_accuracy:
            yield Choice(standing, point, left, waits + standing.slowdown * point.latency)


def best_choice(standing: Standing, demand: Demand) -> Choice | None:
    """The most accurate choice that is on time; else the one that is least late."""
    found = list(choices(standing, demand))
    on_time = [choice for choice in found if choice.on_time]
    if on_time:
        return max(on_time, key=lambda choice: (choice.point.accuracy, -choice.takes))
    return min(found, key=lambda choice: choice.takes - choice.left, default=None)
