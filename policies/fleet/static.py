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
from typing import TypeAlias

from policies.fleet.api import Demand, Directive, Route, Standing
from policies.fleet.freshness import fresh
from policies.fleet.routes import best_choice, reachable

Score: TypeAlias = Callable[[Standing, Demand], float]
Pick: TypeAlias = Callable[[Sequence[Standing], Demand], Standing]

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


def price(standing: Standing, demand: Demand) -> float:
    """What a second on the node costs."""
    return standing.price


class Least:
    """Picks the node with the least score; among equals, the one that is quicker to answer."""

    def __init__(self, score: Score) -> None:
        self._score = score

    def __call__(self, nodes: Sequence[Standing], request: Demand) -> Standing:
        return min(nodes, key=lambda node: (self._score(node, request), impedance(node, request)))


class AtRandom:
    """Picks a node at random, with a probability inverse to its score, of which none is below
    ``least``."""

    def __init__(self, score: Score, least: float, seed: int) -> None:
        self._score = score
        self._least = least
        self._random = random.Random(seed)

    def __call__(self, nodes: Sequence[Standing], request: Demand) -> Standing:
        weights = [1 / max(self._least, self._score(node, request)) for node in nodes]
        return self._random.choices(nodes, weights)[0]


class _Static:
    """Routes to the node that ``pick`` picks of those that can be reached."""

    name: str

    def __init__(self, pick: Pick) -> None:
        self._pick = pick

    def coordinate(
        self, standings: Sequence[Standing], demands: Sequence[Demand], now: float
    ) -> Sequence[Directive]:
        return ()

    def route(self, request: Demand, standings: Sequence[Standing], now: float) -> Route | None:
        nodes = reachable(fresh(standings, now), request)
        if not nodes:
            return None
        choice = best_choice(self._pick(nodes, request), request)
        return None if choice is None else choice.route()


class Closest(_Static):
    name = "closest"

    def __init__(self) -> None:
        super().__init__(Least(network_delay))


class LoadBalance(_Static):
    name = "load_balance"

    def __init__(self) -> None:
        super().__init__(Least(load))


class Cheaper(_Static):
    name = "cheaper"

    def __init__(self) -> None:
        super().__init__(Least(price))


class LeastImpedance(_Static):
    name = "least_impedance"

    def __init__(self) -> None:
        super().__init__(Least(impedance))


class RandomLatency(_Static):
    name = "random_latency"

    def __init__(self, seed: int = 0) -> None:
        super().__init__(AtRandom(network_delay, _LEAST_DELAY, seed))


class RandomLoad(_Static):
    name = "random_load"

    def __init__(self, seed: int = 0) -> None:
        super().__init__(AtRandom(load, _LEAST_LOAD, seed))


STATIC = (
    Closest,
    LoadBalance,
    Cheaper,
    RandomLatency,
    RandomLoad,
    LeastImpedance,
)
