"""Clients of a hub: where each call goes, while hubs and nodes come and go."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import delen
from delen.errors import (
    DaemonUnreachable,
    DelenError,
    InfeasibleBound,
    InvalidInput,
    ModelNotFound,
    NoRoute,
    NotFound,
    Overloaded,
)
from tests.builders.fake_site import MODEL, FakeHub, FakeNode, Server, result

X = np.zeros((32, 32, 3), np.uint8)


class Site:
    """A hub with the nodes a and b."""

    def __init__(self) -> None:
        self.a, self.b = FakeNode("a"), FakeNode("b")
        self.hub = FakeHub(self.a, self.b)
        self._servers: list[Server] = [self.a, self.b, self.hub]

    def client(self, **arguments: Any) -> delen.Client:
        return delen.Client(self.hub.hub_url, **{"model": MODEL, **arguments})

    def close(self) -> None:
        for server in self._servers:
            server.kill()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """On a machine without a daemon of its own."""
    monkeypatch.delenv("DELEN_URL", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("delen.sdk.address.SYSTEM_SOCKET", str(tmp_path / "system.sock"))
    site = Site()
    yield site
    site.close()


def test_a_call_goes_straight_to_the_node_that_the_hub_names(site: Site) -> None:
    with site.client(tenant="camera") as client:
        assert client.url == site.hub.hub_url
        assert client.route is None
        for _ in range(3):
            assert client.infer(X, max_latency=0.5, min_accuracy=0.7).request_id.startswith("a-")
        route = client.route
    assert route is not None
    assert (route.origin, route.node, route.url) == ("hub", "a", site.a.url)
    assert (route.exit, route.size) == (3, None)
    assert 0 < route.lease <= 60
    asked = site.hub.routed
    assert len(asked) == 1, "one route serves its lease"
    assert asked[0]["model"] == MODEL
    assert asked[0]["tenant"] == "camera"
    assert asked[0]["min_accuracy"] == 0.7
    assert 0 < asked[0]["deadline_ms"] <= 500
    assert {each.query["tenant"] for each in site.a.inferred} == {"camera"}


def test_the_node_has_what_the_network_leaves_of_a_bound(site: Site) -> None:
    with site.client() as client:
        client.infer(X, max_latency=0.5)
        client.infer(X)
    first, unbounded = site.a.inferred
    assert 0 < float(first.query["max_latency_ms"]) < 480, "the hub leaves a tenth to the network"
    assert "max_latency_ms" not in unbounded.query


def test_the_samples_of_a_batch_that_wait_for_others_do_not_make_the_link_long(
    site: Site,
) -> None:
    slow = {"results": [result("a-1", latency_ms=0.0), result("a-2", latency_ms=1e6)]}
    site.a.reply = lambda asked: (200, slow)
    with site.client() as client:
        client.infer(np.stack([X, X]))
        client.infer(np.stack([X, X]), max_latency=0.5)
    assert site.hub.routed[-1]["links"]["a"].get("delay_ms", 0.0) == 0.0


def test_a_measured_link_counts_instead_of_the_hubs_guess(site: Site) -> None:
    with site.client() as client:
        client.infer(X, max_latency=0.5)
        client.infer(X, max_latency=0.5)
        client.infer(X, max_latency=5.0)
    links = site.hub.routed[-1]["links"]
    assert set(links) == {"a"}
    assert 0 <= links["a"]["delay_ms"] < 1000
    assert links["a"].get("bandwidth_mbps") is None, "a small input does not show the bandwidth"
    second = float(site.a.inferred[1].query["max_latency_ms"])
    assert second != float(site.a.inferred[0].query["max_latency_ms"])


def test_a_bound_that_the_network_eats_is_not_sent_but_where_the_best_is_wanted(site: Site) -> None:
    site.a.reply = lambda asked: (200, result("a-1", latency_ms=-50.0))
    with site.client() as client:
        client.infer(X)
        with pytest.raises(InfeasibleBound) as caught:
            client.infer(X, max_latency=0.01)
        assert caught.value.nearest.max_latency is not None
        assert caught.value.nearest.max_latency > 0.04
        client.infer(X, max_latency=0.01, on_infeasible="best_effort")
    assert [each.query.get("max_latency_ms") for each in site.a.inferred] == [None, "1.0"]


def test_a_refusal_of_a_bound_counts_the_network(site: Site) -> None:
    refusal = {"error": "too short", "code": "infeasible_bound", "nearest": {"max_latency_ms": 480}}
    site.a.reply = lambda asked: (422, refusal)
    with site.client() as client, pytest.raises(InfeasibleBound) as caught:
        client.infer(X, max_latency=0.5)
    assert caught.value.nearest.max_latency is not None
    assert 0.5 < caught.value.nearest.max_latency < 1.5
    assert not site.b.asked, "the bound is the node's to judge"


@pytest.mark.parametrize("failing", ["killed", "breaks off", "fails", "drains", "has no model"])
def test_a_call_that_a_node_fails_is_answered_by_another(site: Site, failing: str) -> None:
    replies: dict[str, Any] = {
        "breaks off": (0, None),
        "fails": (500, {"error": "the engine failed", "code": "internal"}),
        "drains": (503, {"error": "stopping", "code": "draining", "retry_after_s": 60}),
        "has no model": (404, {"error": "no such model", "code": "model_not_found"}),
    }
    with site.client() as client:
        client.infer(X)
        if failing == "killed":
            site.a.kill()
        else:
            site.a.reply = lambda asked: replies[failing]
        assert client.infer(X).request_id.startswith("b-")
        assert client.route is not None
        assert client.route.node == "b"
        assert client.infer(X).request_id.startswith("b-"), "the node that failed is left out"
    left_out = site.hub.routed[-1]["links"]["a"]
    assert left_out["bandwidth_mbps"] == 0
    assert len(site.b.inferred) == 2


def test_many_calls_at_once_are_answered_once_each_when_their_node_is_killed(site: Site) -> None:
    dead = threading.Event()
    with site.client() as client, ThreadPoolExecutor(8) as pool:
        client.infer(X)
        site.a.reply = lambda asked: (0, dead.wait(20.0))
        calls = [pool.submit(client.infer, X) for _ in range(8)]
        site.a.wait_asked(9)
        dead.set()
        ids = {call.result(20.0).request_id for call in calls}
    assert len(ids) == 8
    assert all(each.startswith("b-") for each in ids)
    assert len(site.b.inferred) == 8


def test_a_node_that_hangs_is_given_up_after_the_bound(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delen.sdk.routes.router.PATIENCE", 0.0)
    hanging = threading.Event()
    with site.client() as client:
        client.infer(X)
        site.a.reply = lambda asked: (200, hanging.wait(20.0) and {})
        with pytest.raises(DaemonUnreachable, match="a at"):
            client.infer(X, max_latency=0.2)
        assert client.infer(X, max_latency=0.2).request_id.startswith("b-")
    hanging.set()


@pytest.mark.parametrize("bound", [None, 0.5])
def test_a_node_is_not_left_out_because_a_caller_has_little_time(
    site: Site, bound: float | None
) -> None:
    hanging = threading.Event()
    with site.client() as client:
        client.infer(X)
        site.a.reply = lambda asked: (200, hanging.wait(20.0) and {})
        with pytest.raises(DaemonUnreachable, match="a at"):
            client.infer(X, max_latency=bound, timeout=0.1)
        hanging.set()
        site.a.reply = lambda asked: (200, site.a.answer(asked))
        assert client.infer(X).request_id.startswith("a-")
        client.infer(X, max_latency=5.0)
    assert not site.b.inferred
    links = [link for asked in site.hub.routed for link in asked.get("links", {}).values()]
    assert all(link.get("bandwidth_mbps") != 0 for link in links)


def test_a_node_that_is_silent_for_long_is_left_out_without_a_bound(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delen.sdk.routes.router.SILENT", 0.1)
    hanging = threading.Event()
    with site.client() as client:
        client.infer(X)
        site.a.reply = lambda asked: (200, hanging.wait(20.0) and {})
        with pytest.raises(DaemonUnreachable, match="a at"):
            client.infer(X, timeout=0.2)
        assert client.infer(X).request_id.startswith("b-")
    hanging.set()


def test_what_is_wrong_is_not_asked_elsewhere(site: Site) -> None:
    site.a.reply = lambda asked: (400, {"error": "bad", "code": "invalid_input", "field": "input"})
    with site.client() as client, pytest.raises(InvalidInput):
        client.infer(X)
    assert not site.b.asked


def test_the_route_is_renewed_beside_the_calls(site: Site) -> None:
    site.hub.lease = 0.2
    with site.client() as client:
        client.infer(X)
        site.hub.nodes.reverse()
        held = threading.Event()
        site.hub.reply = lambda asked: site.hub.answer(asked) if held.wait(20.0) else (0, None)
        asked = 0
        while asked < 2:
            assert client.infer(X).request_id.startswith("a-"), "no call waits for the hub"
            asked = len(site.hub.routed)
        held.set()
        while client.infer(X).request_id.startswith("a-"):
            pass
    assert len({asked["client"] for asked in site.hub.routed}) == 1


def test_calls_go_on_without_the_hub_and_come_back_to_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delen.sdk.routes.table.AWAY", 0.0)
    site.hub.lease = 0.01
    with site.client() as client:
        client.infer(X)
        site.hub.kill()
        while (route := client.route) is None or route.origin != "kept":
            assert client.infer(X).request_id.startswith("a-")
        site.hub.restart()
        site.hub.lease = 60.0
        while (route := client.route) is None or route.origin != "hub":
            assert client.infer(X).request_id.startswith("a-")


def test_without_the_hub_another_node_that_it_once_named_answers(site: Site) -> None:
    with site.client() as client:
        client.infer(X)
        site.hub.nodes.reverse()
        client.infer(X, max_latency=5.0)
        site.hub.kill()
        site.a.kill()
        assert client.infer(X).request_id.startswith("b-")


def test_without_the_hub_a_node_that_only_its_list_has_named_answers(site: Site) -> None:
    with site.client() as client:
        client.infer(X)
        site.hub.wait_asked(2)
        while len(client._way.table.urls()) < 2:  # type: ignore[union-attr]
            pass
        site.hub.kill()
        site.a.kill()
        assert client.infer(X).request_id.startswith("b-")
        assert client.route is not None
        assert (client.route.origin, client.route.node) == ("kept", "b")


def test_a_node_that_came_back_is_used_where_there_is_no_other(site: Site) -> None:
    site.hub.nodes = [site.a]
    with site.client() as client:
        client.infer(X)
        site.a.kill()
        with pytest.raises(DelenError):
            client.infer(X)
        site.a.restart()
        assert client.infer(X).request_id.startswith("a-")


def test_the_daemon_here_answers_where_neither_hub_nor_node_does(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = FakeNode("local")
    with site.client() as client:
        client.infer(X)
        for server in (site.hub, site.a, site.b):
            server.kill()
        monkeypatch.setattr("delen.sdk.routes.router.find_socket", lambda: local.url)
        assert client.infer(X).request_id.startswith("local-")
        assert client.route is not None
        assert (client.route.origin, client.route.node) == ("local", None)
    local.kill()


def test_the_daemon_here_answers_where_the_hub_has_no_route(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = FakeNode("local")
    monkeypatch.setattr("delen.sdk.routes.router.find_socket", lambda: local.url)
    site.hub.nodes.clear()
    with site.client() as client:
        assert client.infer(X).request_id.startswith("local-")
    local.kill()


def test_without_hub_nodes_and_daemon_the_error_names_the_hub_and_the_sockets(site: Site) -> None:
    site.hub.kill()
    with site.client() as client, pytest.raises(DaemonUnreachable) as caught:
        client.infer(X)
    assert site.hub.hub_url in str(caught.value)
    assert "system.sock" in str(caught.value)


def test_when_all_nodes_are_gone_the_error_names_the_hub_each_node_and_the_sockets(
    site: Site,
) -> None:
    with site.client() as client:
        client.infer(X)
        site.a.kill()
        site.b.kill()
        with pytest.raises(DaemonUnreachable) as caught:
            client.infer(X)
    places = (site.hub.hub_url, site.a.url, site.b.url, "no node can answer it", "system.sock")
    assert all(place in str(caught.value) for place in places)


def test_the_hubs_refusal_is_what_the_caller_gets_and_is_not_asked_for_again(site: Site) -> None:
    site.hub.nodes.clear()
    with site.client() as client:
        for _ in range(3):
            with pytest.raises(NoRoute, match="no node can answer it") as caught:
                client.infer(X)
            assert caught.value.retry_after == 1.0
        assert len(site.hub.routed) == 1
    unknown = {"error": "no node has it", "code": "model_not_found"}
    site.hub.reply = lambda asked: (404, unknown)
    with site.client(model="other") as client, pytest.raises(ModelNotFound):
        client.infer(X)


@pytest.mark.parametrize(
    "more",
    [
        {"url": "ftp://nowhere"},
        {"lease_s": 0},
        {"lease_s": 1e300},
        {"max_latency_ms": -1},
        {"rate_fps": 0},
        {"lease_s": "long"},
        {"ceiling": 3},
    ],
)
def test_a_route_that_can_be_none_is_refused(site: Site, more: dict[str, Any]) -> None:
    site.hub.more = more
    with site.client() as client, pytest.raises(DelenError) as caught:
        client.infer(X)
    assert next(iter(more)).split("_")[0] in str(caught.value)
    assert not site.a.asked


def test_calls_beyond_the_rate_that_is_left_are_refused_here(site: Site) -> None:
    site.hub.more = {"rate_fps": 0.01}
    with site.client() as client:
        for _ in range(3):
            client.infer(X)
        with pytest.raises(Overloaded) as caught:
            client.infer(X)
        assert 50 < caught.value.retry_after <= 100
    assert len(site.a.inferred) == 3


def test_a_rate_that_is_no_less_than_was_asked_for_limits_nothing(site: Site) -> None:
    site.hub.more = {"rate_fps": 1.0}
    with site.client() as client:
        for _ in range(5):
            client.infer(X)
    assert len(site.a.inferred) == 5


def test_the_rate_of_calls_is_what_the_hub_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delen.sdk.routes.table._LEAST_SECONDS", 0.0)
    site.hub.lease = 0.01
    with site.client() as client:
        while len(site.hub.routed) < 5:
            client.infer(X)
    first, *later = [asked["fps"] for asked in site.hub.routed]
    assert first == 1.0 or first > 5
    assert max(later) > 5


def test_what_is_asked_later_goes_to_the_node_that_answered(site: Site) -> None:
    with site.client() as client:
        first = client.infer(X)
        site.hub.nodes.reverse()
        second = client.infer(X, max_latency=5.0)
        assert (first.request_id, second.request_id) == ("a-1", "b-1")
        assert first.receipt.energy.settled(timeout=5).value == pytest.approx(0.003)
        assert client.request(second.request_id).request_id == "b-1"
        with pytest.raises(NotFound):
            client.request("c-1")
        with pytest.raises(InvalidInput, match=r"answered by .* and ") as caught:
            client.feedback({"a-1": 3, "b-1": 3})
        assert caught.value.field == "labels"
    assert site.a.asked[-1].path == "/v1/requests/a-1"
    assert site.b.asked[-1].path == "/v1/requests/b-1"


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.power(),
        lambda client: client.set_tenant("camera", weight=2),
        lambda client: client.load(MODEL),
    ],
)
def test_what_is_of_one_daemon_is_to_be_asked_of_it(
    site: Site, call: Callable[[delen.Client], Any]
) -> None:
    with site.client() as client:
        client.infer(X)
        with pytest.raises(InvalidInput, match=site.a.url):
            call(client)


def test_the_models_are_those_of_a_node(site: Site) -> None:
    with site.client() as client:
        assert client.models() == []
    assert site.a.asked[-1].path == "/v1/models"


def test_a_hub_wants_a_model(site: Site) -> None:
    with site.client(model=None) as client:
        with pytest.raises(InvalidInput) as caught:
            client.infer(X)
        assert caught.value.field == "model"
        assert client.infer(X, model=MODEL).model == MODEL


@pytest.mark.parametrize(
    "url", ["hub://", "hub://host", "hub://host:x", "hub://host:0", "hub://host:1/path"]
)
@pytest.mark.parametrize("client", [delen.Client, delen.AsyncClient])
def test_a_hub_has_a_host_and_a_port(url: str, client: type) -> None:
    with pytest.raises(InvalidInput) as caught:
        client(url)
    assert caught.value.field == "url"


def test_a_closed_client_asks_nobody(site: Site) -> None:
    with site.client() as client:
        client.infer(X)
    with pytest.raises(DelenError, match="closed"):
        client.infer(X)


def test_the_variable_may_name_a_hub(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELEN_URL", site.hub.hub_url)
    with delen.Client(model=MODEL) as client:
        assert client.infer(X).request_id == "a-1"
    assert delen.infer(X, model=MODEL).request_id == "a-2"


def test_the_asynchronous_client_does_the_same(site: Site) -> None:
    site.hub.lease = 0.2

    async def ask() -> None:
        async with delen.AsyncClient(site.hub.hub_url, model=MODEL) as client:
            first = await client.infer(X, max_latency=0.5)
            assert (await first.receipt.energy.settled(timeout=5)).value == pytest.approx(0.003)
            assert client.route is not None
            assert (client.route.node, client.transport) == ("a", "tcp")
            while len(site.hub.routed) < 3:
                await client.infer(X, max_latency=0.5)
            site.a.kill()
            answers = await asyncio.gather(*(client.infer(X) for _ in range(8)))
            assert {each.request_id[0] for each in answers} == {"b"}
            site.hub.kill()
            assert (await client.infer(X)).request_id.startswith("b-")
        with pytest.raises(DelenError, match="closed"):
            await client.infer(X)

    asyncio.run(ask())


def test_one_client_serves_several_loops(site: Site) -> None:
    site.hub.lease = 0.01
    client = delen.AsyncClient(site.hub.hub_url, model=MODEL)
    for _ in range(3):
        assert asyncio.run(client.infer(X)).request_id.startswith("a-")


def test_a_child_after_a_fork_asks_for_a_route_of_its_own(site: Site) -> None:
    with site.client() as client:
        client.infer(X)
        child = os.fork()
        if child == 0:
            os._exit(0 if client.infer(X).request_id == "a-2" else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert client.infer(X).request_id == "a-3"
    parent, other = (asked["client"] for asked in site.hub.routed)
    assert parent != other


def test_a_stream_is_of_one_daemon(site: Site) -> None:
    with site.client() as client, pytest.raises(InvalidInput) as caught:
        delen.Stream(client)
    assert caught.value.field == "client"
    with pytest.raises(InvalidInput):
        delen.AsyncStream(delen.AsyncClient(site.hub.hub_url))


def test_a_hub_that_begins_anew_and_knows_no_node_yet_ends_no_route(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWAY", "KEPT"):
        monkeypatch.setattr(f"delen.sdk.routes.table.{name}", 0.0)
    site.hub.lease = 0.01
    with site.client() as client:
        client.infer(X)
        site.hub.kill()
        while client._way.table.problem is None:  # type: ignore[union-attr]
            client.infer(X)
        site.hub.nodes.clear()
        site.hub.restart()
        site.hub.asked.clear()
        while len(site.hub.routed) < 3:
            assert client.infer(X).request_id.startswith("a-")
        site.hub.nodes = [site.b]
        while not client.infer(X).request_id.startswith("b-"):
            pass
        site.hub.nodes.clear()
        with pytest.raises(NoRoute):
            while True:
                client.infer(X)


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (409, {"error": "nodes have different bundles", "code": "bundles_differ"}),
        (503, {"error": "too many clients", "code": "overloaded", "retry_after_s": 9}),
        (401, {"error": "a token is needed", "code": "unauthorized"}),
        (200, b"<html>"),
    ],
)
def test_a_hub_that_does_not_say_that_nobody_can_answer_ends_no_route(
    site: Site, monkeypatch: pytest.MonkeyPatch, status: int, refusal: Any
) -> None:
    for name in ("AWAY", "KEPT"):
        monkeypatch.setattr(f"delen.sdk.routes.table.{name}", 0.0)
    site.hub.lease = 0.01
    with site.client() as client:
        client.infer(X)
        site.hub.reply = lambda asked: (status, refusal)
        site.hub.asked.clear()
        while len(site.hub.asked) < 3:
            assert client.infer(X).request_id.startswith("a-")
    with site.client() as client, pytest.raises(DelenError):
        client.infer(X)
