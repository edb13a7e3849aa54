"""What clients and daemons get from the mapping policies."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from math import inf

import pytest

from delen.errors import ConfigError
from policies.fleet.api import FleetPolicy, LinkState
from policies.fleet.freshness import PATIENCE
from policies.fleet.mapping import MappingPolicy
from policies.fleet.problem import Place, Problem, make_problem
from policies.fleet.routes import LEASE
from policies.fleet.static import STATIC
from policies.plugins import FLEET_POLICIES, make_fleet, plugin_names
from tests.builders.fleet import MODEL, demand, point, standing

MAPPING = ("default", "jellyfish", "exact")


def test_every_policy_is_found_by_its_name() -> None:
    names = plugin_names(FLEET_POLICIES)
    assert {*MAPPING, *(policy.name for policy in STATIC)} <= set(names)
    assert all(make_fleet(name).name == name for name in names)
    with pytest.raises(ConfigError, match="default, exact"):
        make_fleet("oracle")


@pytest.fixture(params=MAPPING)
def policy(request: pytest.FixtureRequest) -> FleetPolicy:
    return make_fleet(request.param)


def test_routes_and_directives_say_the_same(policy: FleetPolicy) -> None:
    nodes = [standing("near", 5.0), standing("far", 5.0)]
    clients = [demand("a", deadline=0.06), demand("b", deadline=0.06)]
    directives = {each.node: each for each in policy.coordinate(nodes, clients, 5.0)}
    assert set(directives) == {"near", "far"}
    for client in clients:
        route = policy.route(client, nodes, 5.5)
        assert route is not None
        directive = directives[route.node]
        assert directive.ceilings["default"] == route.ceiling
        assert directive.resident == (MODEL,)
        assert (directive.said, directive.lease, route.lease) == (5.0, LEASE, LEASE)
        assert route.max_latency == pytest.approx(0.06)


def test_a_client_that_nobody_can_serve_in_time_has_no_route(policy: FleetPolicy) -> None:
    nodes = [standing("near")]
    hopeless = demand("a", deadline=0.002, near=LinkState())
    policy.coordinate(nodes, [hopeless], 0.0)
    assert policy.route(hopeless, nodes, 0.1) is None


@pytest.mark.parametrize("name", plugin_names(FLEET_POLICIES))
def test_a_copy_routes_as_its_original(name: str) -> None:
    nodes, clients = [standing("near"), standing("far", backlog=0.01)], [demand("a"), demand("b")]
    policy = make_fleet(name)
    policy.coordinate(nodes, clients, 0.0)
    copied: FleetPolicy = pickle.loads(pickle.dumps(policy))
    asked = [demand(client) for client in ("a", "b", "c")]
    assert [copied.route(each, nodes, 0.5) for each in asked] == [
        policy.route(each, nodes, 0.5) for each in asked
    ]


@pytest.mark.parametrize("name", plugin_names(FLEET_POLICIES))
def test_a_route_leads_to_a_node_that_keeps_the_floor(name: str) -> None:
    nodes = [standing("near", points=[point(0, 0.6, 5)]), standing("far", backlog=0.02)]
    floor = replace(demand("a", deadline=1.0), min_accuracy=0.75)
    route = make_fleet(name).route(floor, nodes, 0.0)
    assert route is not None and (route.node, route.ceiling.exit) == ("far", 2)
    assert make_fleet(name).route(replace(floor, min_accuracy=0.9), nodes, 0.0) is None


def test_a_client_that_just_came_goes_where_its_answer_is_soonest(policy: FleetPolicy) -> None:
    nodes = [standing("near", backlog=0.04), standing("far")]
    route = policy.route(demand("new", deadline=0.05), nodes, 0.0)
    assert route is not None and route.node == "far"


def test_a_node_that_vanished_is_routed_around_before_the_next_decision(
    policy: FleetPolicy,
) -> None:
    client = demand("a")
    policy.coordinate([standing("near"), standing("far")], [client], 0.0)
    first = policy.route(client, [standing("near"), standing("far")], 0.0)
    assert first is not None
    other = "far" if first.node == "near" else "near"
    now = PATIENCE + 0.1
    said = [standing(first.node, 0.0), standing(other, now)]
    second = policy.route(client, said, now)
    assert second is not None and second.node == other


def test_standings_from_the_future_are_left_out(policy: FleetPolicy) -> None:
    client = demand("a")
    policy.coordinate([standing("near", 3600.0), standing("far", 1.0)], [client], 1.0)
    route = policy.route(client, [standing("near", 3600.0), standing("far", 1.0)], 1.0)
    assert route is not None and route.node == "far"


def test_a_tenant_may_use_what_its_highest_client_needs(policy: FleetPolicy) -> None:
    near = {"near": LinkState()}
    clients = [demand("a", 5.0, 0.2, **near), demand("b", 5.0, 0.2, **near)]
    (directive,) = policy.coordinate([standing("near")], clients, 0.0)
    routes = [policy.route(client, [standing("near")], 0.0) for client in clients]
    exits = [route.ceiling.exit for route in routes if route is not None]
    assert directive.ceilings["default"].exit == max(exits)


def test_a_client_whose_link_is_too_slow_sends_fewer_frames_or_the_smallest() -> None:
    points = [point(0, 0.2, 5, payload=10e3), point(1, 0.8, 5, payload=30e3)]
    nodes = [standing("near", points=points)]
    default, jellyfish = make_fleet("default"), make_fleet("jellyfish")
    slow = demand("a", fps=20, near=LinkState(0.5e6))
    for policy in (default, jellyfish):
        policy.coordinate(nodes, [slow], 0.0)
    fewer, all_frames = default.route(slow, nodes, 0.0), jellyfish.route(slow, nodes, 0.0)
    assert fewer is not None and all_frames is not None
    assert (fewer.ceiling.exit, fewer.rate) == (1, pytest.approx(10))
    assert (all_frames.ceiling.exit, all_frames.rate) == (0, inf)


def test_a_client_without_a_place_sends_the_smallest_frames_that_can_be_in_time() -> None:
    nodes = [standing("near")]
    policy = make_fleet("default")
    crowd = [demand(f"c{n}", fps=80, deadline=0.03, near=LinkState()) for n in range(12)]
    policy.coordinate(nodes, crowd, 0.0)
    routes = [policy.route(client, nodes, 0.0) for client in crowd]
    assert all(route is not None and route.ceiling.exit == 0 for route in routes)


def test_the_last_solution_is_known_where_nodes_have_several_models() -> None:
    seen: list[Sequence[Place | None]] = []

    def solve(problem: Problem, last: Sequence[Place | None]) -> list[Place | None]:
        seen.append(list(last))
        (place,) = [
            (0, number)
            for number, point in enumerate(problem.points[0])
            if point.model == "other" and point.point.exit == 1
        ]
        return [place]

    other = replace(standing("near").models[0], name="other")
    node = replace(standing("near"), models=(*standing("near").models, other))
    asked = replace(demand("a"), model="other")
    policy = MappingPolicy(solve)
    policy.coordinate([node], [asked], 0.0)
    policy.coordinate([node], [asked], 0.5)
    first, second = seen
    assert first == [None]
    assert second == solve(make_problem([node], [asked]), [])
