"""Peers over HTTP: which URLs can be one, and how they are asked."""

from __future__ import annotations

import threading

import pytest

from delen.daemon.peers import HttpPeers, peer_name
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
