"""Answers clients from what the hub last knew: no route waits for an actor."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from delen.fleet.demands import Demands
from delen.fleet.metrics import HubMetrics
from delen.fleet.view import FleetView
from delen.wire import fleet as wire
from delen.wire.message import Milli
from policies.fleet.api import Ceiling, Demand, FleetPolicy, Route
from policies.fleet.default import Default

log = logging.getLogger("delen.fleet")


@dataclass(slots=True)
class Latest:
    """The latest view of the nodes, and the policy as the coordinator last left it. One thread
    replaces them, others read them."""

    view: FleetView
    policy: FleetPolicy

    def use(self, policy: bytes) -> None:
        self.policy = pickle.loads(policy)


class Router:
    """Asks the policy for routes, on one thread. Where the policy fails, the default one decides,
    which then sends a client where its answer is soonest."""

    def __init__(
        self,
        latest: Latest,
        demands: Demands,
        lease: float,
        metrics: HubMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._latest = latest
        self._demands = demands
        self._lease = lease
        self._metrics = metrics
        self._clock = clock
        self._fallback = Default()
        self._failure = ""

    def route(self, request: wire.RouteRequest) -> wire.Route:
        """Where the client's frames go. Raises what ``FleetView.demand`` does, and NoRoute where no
        node can answer in time."""
        view, now = self._latest.view, self._clock()
        demand = view.demand(request)
        self._demands.note(demand, now)
        found = self._ask(view, demand, now)
        if found is None:
            raise view.no_route(request)
        self._metrics.routed(found.node)
        return wire.Route(
            node=found.node,
            url=view.nodes[found.node].url,
            lease=self._lease,
            max_latency=Milli(found.max_latency),
            ceiling=wire.Ceiling.of(found.ceiling),
            expected=Milli(found.expected),
            rate=found.rate if found.rate < inf else None,
        )

    def nodes(self) -> wire.Nodes:
        now = self._clock()
        return wire.Nodes(tuple(node.describe(now) for node in self._latest.view.nodes.values()))

    def troubles(self) -> list[str]:
        """What is wrong with nodes."""
        now = self._clock()
        found = (node.trouble(now) for node in self._latest.view.nodes.values())
        return [trouble for trouble in found if trouble is not None]

    def _ask(self, view: FleetView, demand: Demand, now: float) -> Route | None:
        try:
            return _checked(self._latest.policy.route(demand, view.standings, now), demand)
        except Exception as error:
            self._metrics.policy_failed("route")
            failure = f"{type(error).__name__}: {error}"
            if failure != self._failure:
                log.error("the fleet policy failed to route (%s): the default decides", failure)
            self._failure = failure
        return self._fallback.route(demand, view.standings, now)


def _checked(route: Any, demand: Demand) -> Route | None:
    if route is None:
        return None
    if not isinstance(route, Route) or not isinstance(route.ceiling, Ceiling):
        raise TypeError(f"route gave {route!r}, which is not a Route")
    if route.node not in demand.links:
        raise ValueError(f"route gave {route.node!r}, which the client cannot reach")
    if not (0 < route.max_latency < inf and isfinite(route.expected) and route.rate > 0):
        raise ValueError(f"route gave {route!r}; its figures must be finite and above 0")
    return route
