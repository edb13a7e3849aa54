from __future__ import annotations

import pytest

from policies.fleet.api import Directive, Price, Standing
from policies.fleet.prices import TARGET, Prices
from tests.builders.fleet import POINTS, demand, standing


def _chosen(price: Price, node: Standing) -> int:
    """What a daemon's planner picks at ``price``."""
    points = node.models[0].points
    worth = [p.accuracy - price.per_second * node.slowdown * p.latency for p in points]
    return points[worth.index(max(worth))].exit


def _decide(
    policy: Prices, nodes: list[Standing], users: int, rounds: int = 1, fps: float = 10.0
) -> tuple[dict[str, Directive], dict[str, int], dict[str, float]]:
    """Directives, the exit of each user as its daemon's planner picks it, and loads of nodes."""
    demands = [demand(f"u{n}", fps, tenant=f"u{n}") for n in range(users)]
    for _ in range(rounds):
        directives = {each.node: each for each in policy.coordinate(nodes, demands, 0.0)}
    exits, loads = {}, dict.fromkeys(directives, 0.0)
    for each in demands:
        route = policy.route(each, nodes, 0.0)
        if route is None:
            continue
        node = next(node for node in nodes if node.node == route.node)
        exits[each.client] = _chosen(directives[route.node].prices[each.tenant], node)
        loads[route.node] += fps * node.slowdown * POINTS[exits[each.client]].latency
    return directives, exits, loads


def test_with_room_for_all_nothing_has_a_price() -> None:
    directives, exits, _ = _decide(Prices(), [standing("near"), standing("far")], 2)
    assert set(exits.values()) == {2}
    assert all(p.per_second == 0 for each in directives.values() for p in each.prices.values())


@pytest.mark.parametrize("users", [4, 8, 16, 24])
def test_prices_keep_every_node_within_its_target_and_use_what_there_is(users: int) -> None:
    nodes = [standing("near"), standing("far", slowdown=2.0)]
    _, exits, loads = _decide(Prices(), nodes, users)
    assert len(exits) == users
    assert max(loads.values()) <= TARGET + 1e-6
    deepest = users * 10 * POINTS[2].latency
    assert sum(loads.values()) >= min(0.7 * 2 * TARGET, 0.9 * deepest)


def test_more_users_make_seconds_dearer_and_answers_shallower() -> None:
    nodes = [standing("near"), standing("far")]
    prices, accuracies = [], []
    for users in (4, 12, 24):
        directives, exits, _ = _decide(Prices(), nodes, users)
        prices.append(max(p.per_second for d in directives.values() for p in d.prices.values()))
        accuracies.append(sum(POINTS[exit].accuracy for exit in exits.values()) / users)
    assert prices == sorted(prices) and prices[0] < prices[-1]
    assert accuracies == sorted(accuracies, reverse=True)


def test_users_beyond_all_capacity_have_no_route() -> None:
    _, exits, loads = _decide(Prices(), [standing("near")], 40)
    assert len(exits) == 18  # 0.9 / (10·5 ms)
    assert loads["near"] <= TARGET + 1e-6


def test_each_tenant_has_its_own_price() -> None:
    directives, exits, _ = _decide(Prices(), [standing("near")], 6)
    assert len(set(exits.values())) > 1
    assert len({p.per_second for p in directives["near"].prices.values()}) > 1


def test_a_node_that_vanished_is_left_by_its_users() -> None:
    policy = Prices()
    _decide(policy, [standing("near"), standing("far")], 4)
    for number in range(4):
        route = policy.route(demand(f"u{number}"), [standing("far")], 0.0)
        assert route is not None and route.node == "far"
