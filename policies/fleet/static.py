"""The static policies of ASET (Castellano et al., INFOCOM 2023, arXiv 2301.13618).

Each sends a client to one node by one rule, and there to the most accurate point that is on time:
``closest`` by the least network delay, ``load_balance`` by the least load (work that waits, and the
share of time in which the node runs), ``cheaper`` by the least price, ``random_latency`` and
``random_load`` at random with a probability inverse to delay or load, ``least_impedance`` by the
least time in all: network, queue and processing. None of them issues directives.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from policies.fleet.api import Demand, Directive, Route, Standing
from policies.fleet.freshness import fresh
from policies.fleet.routes import best_choice, reachable

Score = Callable[[Standing, Demand], float]

_LEAST_DELAY = 1e-3
_LEAST_LOAD = 0.01
"""Of a node that has nothing to do, so that a probability inverse to it is finite."""


def network_delay(standing: Standing, demand: Demand) -> float:
    """Seconds that the smallest payload of the model is on its way."""
    model = standing.model(demand.model)
    assert model is not None
    return demand.links[standing.node].seconds(min(point.payload for point in model.points))


def load(standing: Standing, demand: Demand) -> float:
    """What waits, in seconds, and the share of time in which the node runs."""
    return standing.backlog + standing.utilisation


def impedance(standing: Standing, demand: Demand) -> float:
    """Seconds until an answer: the network's, the queue's, and those of the point chosen."""
    choice = best_choice(standing, demand)
    if choice is None:
        return float("inf")
    return demand.links[standing.node].seconds(choice.point.payload) + choice.takes


class _Static:
    """Picks one node for each route."""

    name: str

    def coordinate(
        self, standings: Sequence[Standing], demands: Sequence[Demand], now: float
    ) -> Sequence[Directive]:
        return ()

    def route(self, request: Demand, standings: Sequence[Standing], now: float) -> Route | None:
        nodes = reachable(fresh(standings, now), request)
        if not nodes:
            return None
        choice = best_choice(self.pick(nodes, request), request)
        return None if choice is None else choice.route()

    def pick(self, nodes: Sequence[Standing], request: Demand) -> Standing:
        raise NotImplementedError


class _Least(_Static):
    """The node with the least score; among equals, the one that is quicker to answer."""

    score: Score

    def pick(self, nodes: Sequence[Standing], request: Demand) -> Standing:
        return min(nodes, key=lambda node: (self.score(node, request), impedance(node, request)))


class Closest(_Least):
    name = "closest"
    score = staticmethod(network_delay)


class LoadBalance(_Least):
    name = "load_balance"
    score = staticmethod(load)


class Cheaper(_Least):
    name = "cheaper"
    score = staticmethod(lambda standing, demand: standing.price)


class LeastImpedance(_Least):
    name = "least_impedance"
    score = staticmethod(impedance)


class _Random(_Static):
    """A node at random, with a probability inverse to its score."""

    score: Score
    least: float

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def pick(self, nodes: Sequence[Standing], request: Demand) -> Standing:
        weights = [1 / max(self.least, self.score(node, request)) for node in nodes]
        return self._random.choices(nodes, weights)[0]


class RandomLatency(_Random):
    name = "random_latency"
    score = staticmethod(network_delay)
    least = _LEAST_DELAY


class RandomLoad(_Random):
    name = "random_load"
    score = staticmethod(load)
    least = _LEAST_LOAD


STATIC: tuple[type[_Static], ...] = (
    Closest,
    LoadBalance,
    Cheaper,
    RandomLatency,
    RandomLoad,
    LeastImpedance,
)
