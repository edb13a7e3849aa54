"""What a hub's client knows: rates, leases and failures, at times that a test decides."""

from __future__ import annotations

import re

import pytest

from delen.core.bounds import check_name
from delen.errors import DaemonUnreachable, NoRoute, Overloaded
from delen.sdk.routes.route import HeldRoute, Want
from delen.sdk.routes.table import (
    AVOIDED,
    AWAY,
    DOUBTED,
    KEPT,
    NODES_EVERY,
    REFUSED_EVERY,
    RouteTable,
)
from delen.wire.fleet import Ceiling, Node, NodeState, Route
from delen.wire.message import Milli

WANT = Want("cifar", 0.1, 0.0)
LEASE = 3.0


def held(
    node: str = "a", asked: float = 0.0, rate: float | None = None, want: Want = WANT
) -> HeldRoute:
    route = Route(
        node=node,
        url=f"http://{node}:8000",
        lease=LEASE,
        max_latency=Milli(0.09),
        ceiling=Ceiling(2),
        expected=Milli(0.01),
        rate=rate,
    )
    return HeldRoute.of(route, want, asked)


def node(name: str, state: NodeState, models: tuple[str, ...] = (WANT.model,)) -> Node:
    url = f"http://{name}:8000"
    return Node(
        name=name,
        url=url,
        state=state,
        age=None,
        problem=None,
        models=models,
        backlog=None,
        slowdown=None,
        utilisation=None,
    )


@pytest.fixture
def table() -> RouteTable:
    return RouteTable("camera")


def test_each_want_is_a_demand_of_its_own(table: RouteTable) -> None:
    other = Want("cifar", 0.2, 0.0)
    names = [table.request(want, (), 0.0).client for want in (WANT, other, WANT)]
    assert names[0] == names[2] != names[1]
    assert all(check_name(name, "client") == name for name in names)
    assert re.sub(r"/\d+$", "", names[0]) == re.sub(r"/\d+$", "", names[1])


def test_the_rate_is_that_of_the_calls_since_the_last_question(table: RouteTable) -> None:
    table.admit(WANT, 0.0)
    assert table.request(WANT, (), 0.0).fps == 1.0
    for n in range(1, 21):
        table.admit(WANT, n / 10)
    assert table.request(WANT, (), 2.0).fps == pytest.approx(10.5)
    table.admit(WANT, 2.5)
    assert table.request(WANT, (), 4.0).fps == pytest.approx(0.5)


def test_a_batch_counts_as_so_many_calls(table: RouteTable) -> None:
    table.admit(WANT, 0.0)
    table.answered(WANT, held(), [f"a-{n}" for n in range(50)], 0.5)
    assert table.request(WANT, (), 5.0).fps == pytest.approx(10.0)


def test_calls_beyond_the_rate_of_a_route_are_refused_while_its_lease_runs(
    table: RouteTable,
) -> None:
    for n in range(11):
        table.admit(WANT, n / 10)
    table.request(WANT, (), 1.0)
    table.keep(WANT, held(asked=1.0, rate=2.0))
    refused = 0
    for n in range(20):
        try:
            table.admit(WANT, 1.0 + n / 10)
        except Overloaded as error:
            refused += 1
            assert 0 < error.retry_after <= 0.5
    assert 14 <= refused <= 16
    for n in range(20):
        table.admit(WANT, 1.0 + LEASE + 0.01 + n / 10)


def test_a_route_is_renewed_after_half_its_lease_by_one_caller(table: RouteTable) -> None:
    table.keep(WANT, held())
    assert not table.begin_renewal(WANT, 1.4)
    assert table.begin_renewal(WANT, 1.6)
    assert not table.begin_renewal(WANT, 1.7)
    table.keep(WANT, held(asked=1.6))
    assert not table.begin_renewal(WANT, 1.8)
    assert table.begin_renewal(WANT, 3.2)


def test_a_route_is_used_for_a_while_beyond_its_lease_and_longer_without_the_hub(
    table: RouteTable,
) -> None:
    table.keep(WANT, held())
    table.keep_nodes((node("a", "up"),))
    beyond = LEASE + KEPT + 0.1
    assert table.held(WANT, (), LEASE + KEPT) is not None
    assert table.held(WANT, (), beyond) is None
    assert table.others(WANT, (), beyond) == []
    table.miss_hub(DaemonUnreachable("gone"), beyond)
    assert table.held(WANT, (), beyond + 1000) is not None
    table.refuse(WANT, NoRoute("none", 1.0), beyond)
    assert table.held(WANT, (), beyond + DOUBTED - 0.1) is not None
    assert table.held(WANT, (), beyond + DOUBTED + 0.1) is None


def test_a_hub_is_not_believed_of_nodes_that_it_does_not_hear(table: RouteTable) -> None:
    beyond = LEASE + KEPT + 0.1
    for name in ("a", "b"):
        table.keep(WANT, held(name))
    table.keep_nodes((node("a", "up"), node("b", "up"), node("c", "up")))
    table.keep_nodes((node("a", "up"), node("b", "down"), node("c", "unknown", models=())))
    table.refuse(WANT, NoRoute("none", 1.0), beyond)
    assert table.held(WANT, (), beyond) is None
    assert [each.node for each in table.others(WANT, (), beyond)] == ["b", "c"]
    assert [each.node for each in table.others(WANT, ("http://b:8000",), beyond)] == ["c"]


def test_the_nodes_are_asked_for_once_a_minute_and_more_often_without_a_route(
    table: RouteTable,
) -> None:
    table.keep(WANT, held())
    assert table.wants_nodes(0.0)
    assert not table.wants_nodes(NODES_EVERY - 1)
    table.refuse(WANT, NoRoute("none", 1.0), 10.0)
    assert table.wants_nodes(10.0)
    assert not table.wants_nodes(10.0 + REFUSED_EVERY - 0.1)
    assert table.wants_nodes(10.0 + REFUSED_EVERY)


def test_a_hub_that_is_away_or_refuses_is_asked_again_after_a_second(table: RouteTable) -> None:
    assert table.may_ask(WANT, 0.0)
    table.miss_hub(DaemonUnreachable("gone"), 0.0)
    assert not table.may_ask(WANT, AWAY - 0.1)
    assert table.may_ask(WANT, AWAY)
    table.refuse(WANT, NoRoute("none", 60.0), 5.0)
    assert not table.may_ask(WANT, 5.0 + AWAY - 0.1)
    assert table.may_ask(WANT, 5.0 + AWAY)


def test_a_node_that_failed_is_left_out_and_comes_last(table: RouteTable) -> None:
    for node in ("a", "b"):
        table.keep(WANT, held(node))
    table.avoid("http://b:8000", 0.0)
    assert table.held(WANT, (), 0.1) is None
    assert [each.node for each in table.others(WANT, (), 0.1)] == ["a", "b"]
    links = table.request(WANT, (), 0.1).links
    assert links["b"].bandwidth == 0
    assert "a" not in links, "nothing is known of it"
    assert table.held(WANT, (), AVOIDED) is not None
    table.avoid("http://b:8000", 10.0)
    table.answered(WANT, held("b"), ["b-1"], 10.1)
    assert table.held(WANT, (), 10.2) is not None


def test_old_wants_and_answers_are_forgotten(table: RouteTable) -> None:
    for n in range(20_000):
        table.answered(WANT, held(), [f"a-{n}"], 0.0)
    assert table.url_of("a-0") is None
    assert table.url_of("a-19999") == "http://a:8000"
    for n in range(1000):
        want = Want("cifar", 0.1 + n, 0.0)
        table.keep(want, held(want=want))
    assert table.held(WANT, (), 0.1) is None
