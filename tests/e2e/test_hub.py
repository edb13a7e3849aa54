"""A hub with actors on a real Ray, and nodes that say what a test has them say."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import is_running
from tests.builders.daemon import wait_until
from tests.builders.fake_node import FakeNode, fake_node
from tests.builders.hub import Hub, command, write_config

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")

Site = dict[str, FakeNode]


@pytest.fixture(scope="module")
def all_nodes() -> Iterator[Site]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(fake_node()) for name in ("near", "far", "loft")}


@pytest.fixture(scope="module")
def hub(all_nodes: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    urls = {name: node.url for name, node in all_nodes.items()}
    hub = Hub(write_config(folder / "hub.toml", urls, port=0, period_s=0.5))
    yield hub.start()
    assert "Traceback" not in hub.log(), hub.log()
    if hub.process is not None and hub.process.poll() is None:
        hub.terminate()


@pytest.fixture
def nodes(hub: Hub, all_nodes: Site) -> Iterator[Site]:
    """All of them, up and alike."""
    for node in all_nodes.values():
        node.say()
        node.status, node.refusal = 200, b""
        node.told.clear()
        node.wait.set()
    wait_until(
        lambda: set(hub.states().values()) == {"up"} and hub.route().status == 200,
        "all nodes are up and alike",
    )
    yield all_nodes
    for node in all_nodes.values():
        node.wait.set()


def test_a_route_names_a_node_and_directives_reach_it(hub: Hub, nodes: Site) -> None:
    def is_told() -> bool:
        answer = hub.route(tenant="shop")
        assert answer.status == 200, answer.body
        return any("shop" in told.get("ceilings", {}) for told in nodes[answer.json()["node"]].told)

    wait_until(is_told, "a ceiling for the tenant")
    route = hub.route(tenant="shop").json()
    node = nodes[route["node"]]
    assert route["url"] == node.url
    assert (route["lease_s"], route["rate_fps"]) == (3.0, None)
    assert 0 < route["max_latency_ms"] <= 100
    told = next(told for told in reversed(node.told) if told.get("ceilings"))
    assert told["lease_s"] == 3.0
    assert told["ceilings"]["shop"] == route["ceiling"]
    assert told["resident"] == ["cifar"]


def test_nodes_health_and_metrics_say_what_is_known(hub: Hub, nodes: Site, metric: Any) -> None:
    node = hub.nodes()["near"]
    assert node["url"] == nodes["near"].url
    assert node["models"] == ["cifar"]
    assert (node["problem"], node["slowdown"], node["utilisation"]) == (None, 1.0, 0.1)
    assert 0 <= node["age_s"] < 2
    assert hub.api.get("/healthz").json()["status"] == "ok"
    assert metric(hub.api, "delen_fleet_node_up") == 3
    assert metric(hub.api, "delen_fleet_clients") >= 0
    assert metric(hub.api, "delen_fleet_decision_seconds_count") > 0


def until_down(hub: Hub, name: str) -> dict[str, Any]:
    wait_until(lambda: hub.states()[name] == "down", f"{name} is down")
    others = {state for node, state in hub.states().items() if node != name}
    assert others == {"up"}
    return hub.nodes()[name]


def test_a_node_that_vanishes_is_routed_around_and_comes_back(hub: Hub, nodes: Site) -> None:
    nodes["near"].wait.clear()
    node = until_down(hub, "near")
    assert node["problem"]
    assert "near" in str(hub.api.get("/healthz").json()["problems"])
    assert {hub.route(client=f"c{n}").json()["node"] for n in range(20)} <= {"far", "loft"}
    nodes["near"].wait.set()
    wait_until(lambda: hub.states()["near"] == "up", "near is up")


@pytest.mark.parametrize(
    "body", [b"hello", b'{"node": "far"}', b"[" + 2_000_000 * b"1" + b"]"], ids=len
)
def test_a_node_that_answers_nonsense_is_down_and_its_problem_named(
    hub: Hub, nodes: Site, body: bytes
) -> None:
    nodes["far"].body = body
    assert until_down(hub, "far")["problem"]
    assert hub.route().json()["node"] in ("near", "loft")


def test_different_bundles_under_one_name_are_refused_until_one_is_named(
    hub: Hub, nodes: Site
) -> None:
    nodes["loft"].say(bundle="sha256:b")
    wait_until(lambda: hub.route().status == 409, "the bundles differ")
    refused = hub.route().error(409, "bundles_differ")
    assert all(part in refused["error"] for part in ("loft", "sha256:a", "sha256:b"))
    assert hub.route(bundle="sha256:b").json()["node"] == "loft"
    assert hub.route(bundle="sha256:a").json()["node"] in ("near", "far")


@pytest.mark.parametrize(
    ("fields", "status", "code", "field"),
    [
        ({"fps": 0}, 400, "invalid_input", "fps"),
        ({"deadline_ms": "soon"}, 400, "invalid_input", "deadline_ms"),
        ({"color": 1}, 400, "unknown_field", "color"),
        ({"links": {"near": {"bandwidth_mbps": -1}}}, 400, "invalid_input", None),
        ({"model": "words"}, 404, "model_not_found", None),
        ({"deadline_ms": 0.001, "links": {"near": {"delay_ms": 5}}}, 503, "no_route", None),
    ],
)
def test_a_wrong_request_is_refused_by_its_field(
    hub: Hub, nodes: Site, fields: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    refused = hub.route(**fields).error(status, code)
    assert field is None or refused["field"] == field
    assert (code == "no_route") == ("retry_after_s" in refused)


def test_other_requests_are_refused(hub: Hub) -> None:
    hub.api.get("/v1/models").error(404, "not_found")
    hub.api.get("/v1/route").error(405, "method_not_allowed")
    hub.api.post("/v1/nodes").error(405, "method_not_allowed")
    hub.api.post("/v1/route", body=b"{").error(400, "invalid_input")
    hub.api.post("/v1/route", body=300_000 * b" ").error(413, "too_large")
    assert hub.api.get("/v1/nodes", query={"x": 1}).status == 400


def test_actors_that_die_are_started_again(hub: Hub, nodes: Site, metric: Any) -> None:
    for kind in ("NodeCaller", "Decider"):
        before = metric(hub.api, "delen_fleet_actor_restarts_total")
        hub.kill_actor(kind)
        wait_until(
            lambda before=before: metric(hub.api, "delen_fleet_actor_restarts_total") > before,
            f"a new {kind}",
        )
        assert hub.route().status == 200
    wait_until(lambda: hub.api.get("/healthz").json()["status"] == "ok", "all is well")
    assert set(hub.states().values()) == {"up"}


def test_a_hub_that_is_killed_learns_all_again_and_ends_without_leftovers(
    hub: Hub, nodes: Site
) -> None:
    hub.kill()
    hub.start()
    wait_until(lambda: hub.route().status == 200, "a route")
    wait_until(lambda: set(hub.states().values()) == {"up"}, "all nodes are up")
    children = hub.children()
    assert any(text.startswith("ray::NodeCaller") for text in children.values())
    assert hub.terminate() == 0
    wait_until(lambda: not any(map(is_running, children)), "nothing is left of its Ray", 30)


def test_a_start_that_fails_is_one_sentence(tmp_path: Path) -> None:
    file = write_config(tmp_path / "hub.toml", {"near": "http://near:8000"}, policy="oracle")
    ended = subprocess.run(command(file), capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "oracle" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
