"""Peers over HTTP: which URLs can be one, how they are asked, and what is known of the link."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds
from delen.core.handover import Suspended
from delen.daemon.peers import HttpPeers, Link, peer_name
from delen.errors import ConfigError, DelenError
from delen.profile.cost_model import CostModel
from policies.plan.planner import Planner, PlannerSettings
from tests.builders.fake_node import standing
from tests.builders.fake_site import Asked, Reply, Server
from tests.unit.delen.answers import answer


def test_a_peer_is_called_by_its_host_and_port() -> None:
    assert peer_name("http://server:8000") == "server:8000"
    assert peer_name("http://10.0.0.7:9000/prefix") == "10.0.0.7:9000"


@pytest.mark.parametrize(
    "url",
    [
        "server:8000",
        "http://user@server:8000",
        "ftp://server",
        "",
        "unix:///run/delen.sock",
        "http://[::1]:8000",
        f"http://{60 * 'a'}.lan:8000",
    ],
)
def test_what_is_no_daemon_elsewhere_is_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigError, match=r"fleet\.peers"):
        peer_name(url)


def test_a_peer_that_does_not_answer_keeps_no_other_from_being_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("delen.daemon.peers._ANSWERS", 60.0)
    gate = threading.Event()

    def hang(asked: Asked) -> Reply:
        gate.wait(60)
        return 503, b"{}"

    silent, there = Server(hang), Server(lambda asked: (503, b"{}"))
    peers = HttpPeers([silent.url, there.url])
    peers.start()
    try:
        assert {asked.path for asked in there.wait_asked(1)} == {"/v1/standing"}
    finally:
        gate.set()
        peers.close()
        silent.kill()
        there.kill()


def test_a_link_is_as_quick_as_its_shortest_round_trip_and_tried_while_it_is_unknown() -> None:
    link = Link()
    assert (link.state(0.0).bandwidth, link.state(0.0).delay) == (inf, 0.0)
    for seconds in (0.010, 0.004, 0.200):
        link.took(seconds)
    assert link.state(0.0).delay == pytest.approx(0.002)


def test_its_bandwidth_is_that_of_what_it_carried_lately() -> None:
    link = Link()
    link.took(0.010)
    link.carried(100_000, 0.110, 5.0)
    assert link.state(6.0).bandwidth == pytest.approx(1e6)
    link.carried(100_000, 1.010, 7.0)
    assert 1e5 < link.state(8.0).bandwidth < 1e6
    assert link.state(40.0).bandwidth == inf, "it may be another one by now"
    link.carried(100_000, 0.005, 50.0)
    assert link.state(50.0).bandwidth == inf, "nothing can be said of so short a time"


def test_jobs_on_their_way_to_a_peer_are_work_that_waits_there(
    make_calibration: Callable[..., Calibration],
    make_costs: Callable[..., CostModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("delen.daemon.peers._ANSWERS", 60.0)
    monkeypatch.setattr("delen.daemon.peers.is_fresh", lambda standing, now: True)
    standings, hanging = threading.Semaphore(1), threading.Event()

    def reply(asked: Asked) -> Reply:
        if asked.path == "/v1/standing":
            standings.acquire(timeout=20)
            return 200, standing()
        hanging.wait(20)
        return 503, {"error": "stopping", "code": "draining", "retry_after_s": 1}

    server = Server(reply)
    peers = HttpPeers([server.url])
    exits = [SimpleNamespace(features=(4,)), SimpleNamespace(features=(4,)), None]
    bundle = SimpleNamespace(digest="sha256:a", size=None, exits=exits)
    planner = Planner(make_calibration(0.6, 0.75, 0.9, samples=5_000), PlannerSettings())
    model: Any = SimpleNamespace(bundle=bundle, planner=planner, costs=make_costs(1, 1, 1))

    def way_seconds() -> float | None:
        way = peers.find(model, Bounds(min_accuracy=0.8), 0.0, None)
        return None if way is None else way.seconds

    peers.start()
    try:
        server.wait_asked(2)
        alone = way_seconds()
        assert alone is not None
        name = peer_name(server.url)
        features = Suspended(1, "sha256:a", None, "fp32", None, 0.5, bytes(16))
        begun = replace(answer("begun"), suspended=features)
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(peers.go_on, name, begun, None, 20.0) for _ in range(2)]
            server.wait_asked(4)
            behind = way_seconds()
            hanging.set()
            for call in calls:
                assert isinstance(call.exception(20.0), DelenError)
        assert behind is not None
        assert behind - alone == pytest.approx(2 * 0.010)
        assert way_seconds() == pytest.approx(alone)
    finally:
        hanging.set()
        standings.release(100)
        peers.close()
        server.kill()
