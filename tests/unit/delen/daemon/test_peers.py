"""Peers over HTTP: which URLs can be one, how they are asked, and what is known of the link."""

from __future__ import annotations

import threading
from math import inf

import pytest

from delen.daemon.peers import HttpPeers, Link, peer_name
from delen.errors import ConfigError
from tests.builders.fake_site import Asked, Reply, Server


def test_a_peer_is_called_by_its_host_and_port() -> None:
    assert peer_name("http://server:8000") == "server:8000"
    assert peer_name("http://user@10.0.0.7:9000/prefix") == "10.0.0.7:9000"


@pytest.mark.parametrize(
    "url",
    [
        "server:8000",
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
