"""Prices of seconds, a node and tenant: a form of Dystri (ICPP 2023) made of what it publishes.

Dystri has distributed controllers and a coordinator, and adjusts quality a request and a user at a
time; its rules are not public, hence *Dystri-style*. Here a node's second has a price λ, found by
dual ascent on utilisation:

``λ_n ← max(0, λ_n + η·(u_n − target))``, ``u_n = Σ fps·seconds`` of the clients that prefer node n,

where each client prefers the node and point with the largest ``accuracy − λ_n·seconds`` among those
that its deadline allows (``network + 2·latency ≤ deadline``). Clients alike prefer alike, so at the
best λ a node is either too full or too empty: the last choice is rounded. The clients of nodes that
are too full choose anew, the one first that gains most accuracy for the share it takes, and go on
while there is room. Every tenant then has its own price at its node, the one nearest to λ at which
the daemon's planner chooses that point. The planner still sees each request: its deadline and the
queue of the moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from policies.fleet.api import Ceiling, Demand, Directive, OperatingPoint, Price, Route, Standing
from policies.fleet.freshness import fresh
from policies.fleet.routes import LEASE, Choice, best_choice, choices, reachable

TARGET = 0.9
"""Utilisation that prices aim at; queues grow beyond it."""

STEPS = 60
"""Of dual ascent, for each decision."""

_TIE = 1e-6


@dataclass(frozen=True, slots=True)
class _Option:
    """A point of a node for one client: ``load`` is the share of the node that it takes, ``low``
    and ``high`` the prices between which the node's planner chooses it."""

    node: int
    point: OperatingPoint
    seconds: float
    load: float
    gain: float
    low: float
    high: float
    left: float


class Prices:
    """Keeps the nodes' prices from one decision to the next, and where clients go."""

    name = "prices"

    def __init__(self, target: float = TARGET) -> None:
        self._target = target
        self._prices: dict[str, float] = {}
        self._routes: dict[str, Route | None] = {}

    def coordinate(
        self, standings: Sequence[Standing], demands: Sequence[Demand], now: float
    ) -> Sequence[Directive]:
        nodes = fresh(standings, now)
        options = [_options(nodes, demand) for demand in demands]
        prices = [self._prices.get(node.node, 0.0) for node in nodes]
        prices = _ascend(options, prices, self._target)
        chosen = _round(
            options, [_preferred(each, prices) for each in options], len(nodes), self._target
        )
        self._prices = {node.node: price for node, price in zip(nodes, prices, strict=True)}
        self._routes = {}
        by_tenant: list[dict[str, float]] = [{} for _ in nodes]
        resident: list[set[str]] = [set() for _ in nodes]
        for demand, option in zip(demands, chosen, strict=True):
            if option is None:
                self._routes[demand.client] = None
                continue
            node = nodes[option.node]
            price = min(max(prices[option.node], option.low), option.high)
            known = by_tenant[option.node].get(demand.tenant, 0.0)
            by_tenant[option.node][demand.tenant] = max(known, price)
            resident[option.node].add(demand.model)
            ceiling = Ceiling(max(p.exit for p in _model_points(node, demand)), option.point.size)
            expected = 2 * option.seconds
            self._routes[demand.client] = Route(node.node, LEASE, option.left, ceiling, expected)
        return [
            Directive(
                node.node,
                now,
                LEASE,
                prices={tenant: Price(price) for tenant, price in tenants.items()},
                resident=tuple(sorted(models)),
            )
            for node, tenants, models in zip(nodes, by_tenant, resident, strict=True)
        ]

    def route(self, request: Demand, standings: Sequence[Standing], now: float) -> Route | None:
        nodes = reachable(fresh(standings, now), request)
        if request.client in self._routes:
            route = self._routes[request.client]
            if route is None or route.node in {node.node for node in nodes}:
                return route
        found = [choice for node in nodes if (choice := best_choice(node, request)) is not None]
        soonest = min(found, key=lambda choice: choice.takes - choice.left, default=None)
        return None if soonest is None else soonest.route()


def _model_points(node: Standing, demand: Demand) -> tuple[OperatingPoint, ...]:
    model = node.model(demand.model)
    assert model is not None
    return model.points


def _options(nodes: Sequence[Standing], demand: Demand) -> list[_Option]:
    """The points that some price makes a planner choose, of all nodes in reach."""
    options = []
    by_name = {node.node: number for number, node in enumerate(nodes)}
    for node in reachable(nodes, demand):
        able = [
            choice
            for choice in choices(node, demand)
            if 2 * choice.cost <= choice.left
            and choice.point.accuracy >= demand.min_accuracy
            and choice.point.payload * demand.fps <= demand.links[node.node].bandwidth
        ]
        hull = _hull([(choice.cost, choice.point.accuracy) for choice in able])
        for place, index in enumerate(hull):
            choice = able[index]
            low, high = 0.0, inf
            if place + 1 < len(hull):
                low = _slope(able[index], able[hull[place + 1]]) + _TIE
            if place:
                high = _slope(able[hull[place - 1]], able[index]) - _TIE
            options.append(
                _Option(
                    by_name[node.node],
                    choice.point,
                    choice.cost,
                    demand.fps * choice.cost,
                    demand.fps * choice.point.accuracy,
                    low,
                    high,
                    choice.left,
                )
            )
    return options


def _slope(one: Choice, other: Choice) -> float:
    return (other.point.accuracy - one.point.accuracy) / (other.cost - one.cost)


def _hull(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (seconds, accuracy) are on the upper concave hull that rises, by ascending seconds."""
    hull: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        seconds, accuracy = points[index]
        if hull and accuracy <= points[hull[-1]][1]:
            continue
        while len(hull) > 1:
            (x0, y0), (x1, y1) = points[hull[-2]], points[hull[-1]]
            if (y1 - y0) * (seconds - x0) > (accuracy - y0) * (x1 - x0):
                break
            hull.pop()
        hull.append(index)
    return hull


def _preferred(options: Sequence[_Option], prices: Sequence[float]) -> _Option | None:
    return max(
        options,
        key=lambda option: option.point.accuracy - prices[option.node] * option.seconds,
        default=None,
    )


def _ascend(
    options: Sequence[Sequence[_Option]], prices: Sequence[float], target: float
) -> list[float]:
    """Prices after dual ascent. A step is such that a node's price can cross the steepest slope of
    its points in a few, and shrinks as 1/√k."""
    found = list(prices)
    steepest = max((o.point.accuracy / o.seconds for each in options for o in each), default=0.0)
    for step in range(1, STEPS + 1):
        loads = [0.0] * len(found)
        for each in options:
            if (option := _preferred(each, found)) is not None:
                loads[option.node] += option.load
        size = 0.2 * steepest / step**0.5
        found = [
            max(0.0, price + size * (load - target))
            for price, load in zip(found, loads, strict=True)
        ]
    return found


def _round(
    options: Sequence[Sequence[_Option]],
    chosen: Sequence[_Option | None],
    nodes: int,
    target: float,
) -> list[_Option | None]:
    """``chosen`` where its node is within ``target``; the clients of fuller nodes choose anew, one
    after the other, as long as there is room."""
    loads = [0.0] * nodes
    for option in chosen:
        if option is not None:
            loads[option.node] += option.load
    current = [None if o is None or loads[o.node] > target + _TIE else o for o in chosen]
    loads = [0.0 if load > target + _TIE else load for load in loads]
    while _step_up(options, current, loads, target):
        pass
    return current


def _step_up(
    options: Sequence[Sequence[_Option]],
    current: list[_Option | None],
    loads: list[float],
    target: float,
) -> bool:
    """The client that gains most accuracy for each share that is left takes more."""
    best, change = 0.0, None
    for client, each in enumerate(options):
        held = current[client]
        for option in each:
            gain = option.gain - (0.0 if held is None else held.gain)
            more = option.load - (held.load if held is not None and held.node == option.node else 0)
            if gain > _TIE and loads[option.node] + more <= target + _TIE:
                worth = gain / max(more, _TIE)
                if worth > best:
                    best, change = worth, (client, option)
    if change is None:
        return False
    _put(current, loads, *change)
    return True


def _put(
    current: list[_Option | None], loads: list[float], client: int, option: _Option | None
) -> None:
    held = current[client]
    if held is not None:
        loads[held.node] -= held.load
    if option is not None:
        loads[option.node] += option.load
    current[client] = option
