from __future__ import annotations

from collections import Counter

import pytest

from policies.fleet.api import LinkState
from policies.fleet.freshness import PATIENCE
from policies.fleet.static import (
    STATIC,
    Cheaper,
    Closest,
    LeastImpedance,
    LoadBalance,
    RandomLatency,
    RandomLoad,
)
from tests.builders.fleet import demand, standing

NEAR, FAR = LinkState(delay=1e-3), LinkState(delay=20e-3)


def test_each_rule_picks_its_node() -> None:
    nodes = [
        standing("near", backlog=0.05, utilisation=0.9, price=3.0),
        standing("far", utilisation=0.1, price=1.0),
    ]
    asked = demand("a", near=NEAR, far=FAR)
    picked = {policy.name: policy().route(asked, nodes, 0.0) for policy in STATIC}
    assert picked["closest"] is not None and picked["closest"].node == "near"
    for name in ("load_balance", "cheaper", "least_impedance"):
        route = picked[name]
        assert route is not None and route.node == "far"


def test_a_route_has_the_deepest_exit_that_is_on_time_and_what_the_network_leaves() -> None:
    route = Closest().route(demand("a", deadline=0.05, near=NEAR), [standing("near")], 0.0)
    assert route is not None
    assert (route.ceiling.exit, route.max_latency) == (2, pytest.approx(0.048))
    busy = [standing("near", backlog=0.035)]
    route = Closest().route(demand("a", deadline=0.05, near=NEAR), busy, 0.0)
    assert route is not None
    assert route.ceiling.exit == 1


@pytest.mark.parametrize(("policy", "likely"), [(RandomLatency, "near"), (RandomLoad, "far")])
def test_chance_prefers_the_better_node_in_its_proportion(
    policy: type[RandomLatency] | type[RandomLoad], likely: str
) -> None:
    nodes = [standing("near", utilisation=0.8), standing("far", utilisation=0.1)]
    asked = demand("a", near=LinkState(delay=5e-3), far=LinkState(delay=40e-3))
    chosen = policy(seed=1)
    routes = [chosen.route(asked, nodes, 0.0) for _ in range(900)]
    counts = Counter(route.node for route in routes if route is not None)
    assert counts[likely] / 900 == pytest.approx(8 / 9, abs=0.05)


@pytest.mark.parametrize("policy", STATIC)
def test_nodes_that_are_gone_or_cut_off_are_routed_around(policy: type[Closest]) -> None:
    asked = demand("a", near=NEAR, far=FAR)
    said = [standing("near", 0.0), standing("far", 3.0)]
    route = policy().route(asked, said, PATIENCE + 0.5)
    assert route is not None and route.node == "far"
    cut = demand("a", near=LinkState(0.0), far=FAR)
    route = policy().route(cut, [standing("near"), standing("far")], 0.0)
    assert route is not None and route.node == "far"
    assert policy().route(asked, [standing("other")], 0.0) is None
    assert policy().route(demand("a", near=LinkState(0.0)), [standing("near")], 0.0) is None


def test_no_static_policy_issues_directives() -> None:
    for policy in (LoadBalance(), Cheaper(), LeastImpedance()):
        assert policy.coordinate([standing("near")], [demand("a")], 0.0) == ()
