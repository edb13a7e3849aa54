"""Peers over HTTP: which URLs can be one."""

from __future__ import annotations

import pytest

from delen.daemon.peers import peer_name
from delen.errors import ConfigError


def test_a_peer_is_called_by_its_host_and_port() -> None:
    assert peer_name("http://server:8000") == "server:8000"
    assert peer_name("http://user@10.0.0.7:9000/prefix") == "10.0.0.7:9000"


@pytest.mark.parametrize("url", ["server:8000", "ftp://server", "", "unix:///run/delen.sock"])
def test_what_is_no_daemon_elsewhere_is_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigError, match=r"fleet\.peers"):
        peer_name(url)
