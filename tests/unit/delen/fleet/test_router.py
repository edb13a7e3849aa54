"""Routes from the latest view, and what a policy that fails does to them."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from delen.errors import NoRoute
from delen.fleet.demands import Demands
from delen.fleet.metrics import HubMetrics
from delen.fleet.router import Latest, Router
from delen.fleet.view import FleetView, NodeView
from delen.wire.fleet import Ceiling, RouteRequest
from policies.fleet.api import Ceiling as PolicyCeiling
from policies.fleet.api import Route
from policies.fleet.static import LeastImpedance
from tests.builders.fleet import MODEL, standing


class Told(LeastImpedance):
    def __init__(self, given: Any) -> None:
        self.given = given

    def route(self, *_: Any) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


ROUTE = Route("far", 99.0, 0.05, PolicyCeiling(1), 0.02)


@pytest.fixture
def metrics() -> HubMetrics:
    return HubMetrics()


def router(metrics: HubMetrics, given: Any) -> tuple[Router, Demands]:
    near, far = standing("near"), standing("far", backlog=0.01)
    nodes = [NodeView(each.node, f"http://{each.node}", each) for each in (near, far)]
    latest, demands = Latest(FleetView(nodes, 0.0, 1.0), Told(given)), Demands(4.0)
    return Router(latest, demands, 3.0, metrics, lambda: 0.5), demands


def ask(router: Router, deadline: float = 0.1) -> Any:
    return router.route(RouteRequest(client="a", model=MODEL, fps=10.0, deadline=deadline))


def test_a_route_names_the_node_its_url_and_the_hubs_lease(metrics: HubMetrics) -> None:
    answer, demands = router(metrics, ROUTE)
    route = ask(answer)
    assert (route.node, route.url, route.lease) == ("far", "http://far", 3.0)
    assert (route.max_latency, route.expected, route.rate) == (0.05, 0.02, None)
    assert route.ceiling == Ceiling(1)
    assert len(demands) == 1
    assert b'delen_fleet_routes_total{node="far"} 1.0' in metrics.exposition()


def test_a_client_without_a_route_is_told_when_to_ask_again_and_counts(
    metrics: HubMetrics,
) -> None:
    answer, demands = router(metrics, None)
    with pytest.raises(NoRoute, match="near, far") as caught:
        ask(answer)
    assert caught.value.retry_after == 1.0
    assert len(demands) == 1


@pytest.mark.parametrize(
    "given",
    [
        ZeroDivisionError("of nothing"),
        "far",
        Route("moon", 3.0, 0.05, PolicyCeiling(1)),
        Route("far", 3.0, inf, PolicyCeiling(1)),
        Route("far", 3.0, -0.1, PolicyCeiling(1)),
        Route("far", 3.0, 0.1, PolicyCeiling(1), rate=0.0),
        Route("far", 3.0, 0.1, None),  # type: ignore[arg-type]
    ],
)
def test_where_the_policy_fails_the_answer_comes_from_where_it_is_soonest(
    metrics: HubMetrics, given: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answer, _ = router(metrics, given)
    assert [ask(answer).node for _ in range(2)] == ["near", "near"]
    assert b'delen_fleet_policy_failures_total{call="route"} 2.0' in metrics.exposition()
    assert len([each for each in caplog.records if each.levelname == "ERROR"]) == 1
