"""What the hub claims of its nodes, and what a request means there."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest

from delen.daemon.node_caller import Heard
from delen.errors import BundlesDiffer, DelenError, InvalidInput, ModelNotFound, NoRoute
from delen.fleet.config import NodeSettings
from delen.fleet.nodes import Nodes
from delen.fleet.view import FleetView, NodeView
from delen.wire.fleet import Link, RouteRequest
from policies.fleet.api import LinkState
from policies.fleet.freshness import PATIENCE
from tests.builders.fleet import MODEL, standing


def node(name: str, said: float | None = 0.0, misses: int = 0, **more: Any) -> NodeView:
    said_of = None if said is None else standing(name, said, **more)
    return NodeView(name, f"http://{name}", said_of, misses)


def view(*nodes: NodeView, now: float = 0.0) -> FleetView:
    return FleetView(nodes, now, period=1.0)


def request(**changes: Any) -> RouteRequest:
    given = {"client": "camera", "model": MODEL, "fps": 10.0, "deadline": 0.1}
    return RouteRequest(**{**given, **changes})


def test_only_what_is_known_is_claimed() -> None:
    assert node("a", None).state(0.0) == "unknown"
    assert node("a").state(0.0) == "up"
    assert node("a", misses=1).state(1.0) == "up"
    assert node("a", misses=2).state(1.0) == "down"
    assert node("a").state(PATIENCE + 0.1) == "down"
    said = node("a", None).describe(5.0)
    assert (said.age, said.models, said.backlog, said.slowdown) == (None, (), None, None)
    said = node("a", backlog=0.2).describe(0.5)
    assert (said.age, said.models, said.backlog) == (0.5, (MODEL,), 0.2)


def test_a_node_is_down_after_two_standings_that_did_not_come_and_up_with_the_next() -> None:
    nodes = Nodes([NodeSettings("a", "http://a")], period=1.0)
    nodes.heard("a", Heard(1, standing("a")), asked=10.0)
    silence = Heard(1, problem="no answer in time")
    nodes.heard("a", silence, 11.0)
    assert nodes.view(11.0).nodes["a"].state(11.0) == "up"
    nodes.heard("a", silence, 12.0)
    found = nodes.view(12.0).nodes["a"].describe(12.0)
    assert (found.state, found.problem, found.age) == ("down", "no answer in time", 2.0)
    assert nodes.view(12.0).standings == ()
    nodes.heard("a", Heard(1, standing("a")), asked=13.0)
    found = nodes.view(13.0).nodes["a"].describe(13.0)
    assert (found.state, found.problem, found.age) == ("up", None, 0.0)


def test_nonsense_takes_a_node_down_at_once_and_a_dead_actor_only_in_time() -> None:
    nodes = Nodes([NodeSettings(name, f"http://{name}") for name in "ab"], period=1.0)
    for name in "ab":
        nodes.heard(name, Heard(1, standing(name)), asked=10.0)
    nodes.heard("a", Heard(1, problem="its standing is wrong", lasts=True), 11.0)
    nodes.failed("b", "its actor failed")
    assert [each.node for each in nodes.view(11.0).standings] == ["b"]
    assert nodes.view(10.0 + PATIENCE + 0.1).standings == ()


def test_a_node_that_refuses_directives_still_answers_and_it_is_said() -> None:
    nodes = Nodes([NodeSettings("a", "http://a")], period=1.0)
    nodes.heard("a", Heard(1, standing("a")), asked=0.0)
    nodes.told("a", "the token is wrong")
    nodes.heard("a", Heard(1, standing("a")), asked=1.0)
    found = nodes.view(1.0).nodes["a"].describe(1.0)
    assert found.state == "up"
    assert "the token is wrong" in (found.problem or "")
    nodes.told("a", None)
    nodes.heard("a", Heard(1, standing("a")), asked=2.0)
    assert nodes.view(2.0).nodes["a"].problem is None


def test_a_demand_has_the_links_that_lead_to_the_model() -> None:
    nodes = view(node("a"), node("b"), node("c", misses=2))
    links = {"a": Link(bandwidth=1e6, delay=0.01), "c": Link(bandwidth=5e6), "gone": Link()}
    asked = request(links=links, tenant="shop", min_accuracy=0.7)
    demand = nodes.demand(asked)
    assert demand.links["a"] == LinkState(1e6, 0.01)
    assert set(demand.links) == {"a", "b"}
    assert (demand.tenant, demand.min_accuracy, demand.fps) == ("shop", 0.7, 10.0)
    assert nodes.demand(request(model=MODEL)).client == nodes.demand(request()).client
    assert nodes.demand(request(tenant="shop")).client != nodes.demand(request()).client


def test_a_link_of_which_nothing_is_known_is_as_good_as_the_best_one_that_is() -> None:
    nodes = view(node("a"), node("b"), node("c"))
    links = {"a": Link(bandwidth=1e6, delay=0.01), "b": Link(bandwidth=None, delay=0.05)}
    assert nodes.demand(request(links=links)).links == {
        "a": LinkState(1e6, 0.01),
        "b": LinkState(1e6, 0.05),
        "c": LinkState(1e6, 0.01),
    }
    nowhere = {"a": Link(bandwidth=0.0)}
    assert nodes.demand(request(links=nowhere)).links == {
        "a": LinkState(0.0),
        "b": LinkState(inf),
        "c": LinkState(inf),
    }


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"fps": 0.0}, "fps"),
        ({"deadline": -1.0}, "deadline_ms"),
        ({"deadline": inf}, "deadline_ms"),
        ({"min_accuracy": 2.0}, "min_accuracy"),
        ({"client": ""}, "client"),
        ({"client": "x" * 300}, "client"),
        ({"model": "x" * 300}, "model"),
        ({"tenant": "a shop"}, "tenant"),
        ({"links": {"a": Link(bandwidth=-1.0)}}, "links.a.bandwidth_mbps"),
        ({"links": {"a": Link(delay=-1.0)}}, "links.a.delay_ms"),
    ],
)
def test_a_wrong_request_is_refused_by_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        view(node("a")).demand(request(**changes))
    assert caught.value.field == field


def test_different_bundles_under_one_name_are_refused_until_one_is_named() -> None:
    nodes = view(node("a"), node("b", bundle="sha256:b"), node("c"))
    with pytest.raises(BundlesDiffer) as caught:
        nodes.demand(request())
    assert all(part in str(caught.value) for part in ("a, c: sha256:a", "b: sha256:b", MODEL))
    assert set(nodes.demand(request(bundle="sha256:a")).links) == {"a", "c"}
    assert set(nodes.demand(request(bundle="sha256:b")).links) == {"b"}
    with pytest.raises(ModelNotFound, match="sha256:c"):
        nodes.demand(request(bundle="sha256:c"))


def refusal(nodes: FleetView, asked: RouteRequest) -> DelenError:
    with pytest.raises(DelenError) as caught:
        nodes.demand(asked)
    return caught.value


def test_a_model_is_not_found_only_where_no_silent_node_may_have_it() -> None:
    unheard, down = node("b", None), node("c", misses=2)
    assert isinstance(refusal(view(node("a")), request(model="words")), ModelNotFound)
    assert isinstance(refusal(view(node("a"), down), request(model="words")), ModelNotFound)
    for nodes, model in ((view(node("a"), unheard), "words"), (view(down), MODEL)):
        refused = refusal(nodes, request(model=model))
        assert isinstance(refused, NoRoute)
        assert refused.retry_after == 1.0
        assert "without a standing" in str(refused)


def test_the_same_of_a_bundle_that_only_a_node_that_is_down_has() -> None:
    nodes = view(node("a"), replace(node("b", bundle="sha256:b"), misses=2))
    assert set(nodes.demand(request()).links) == {"a"}
    assert isinstance(refusal(nodes, request(bundle="sha256:b")), NoRoute)
