from __future__ import annotations

import fcntl
import resource
import socket
from collections.abc import Iterator
from functools import partial
from queue import SimpleQueue

import pytest

from api.server.disconnects import DisconnectWatcher, has_gone, is_readable

HIGH = 1500


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection whose near end has a descriptor that select does not take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard <= HIGH:
        pytest.skip(f"at most {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, HIGH + 10), hard))
    near, far = socket.socketpair()
    high = socket.socket(fileno=fcntl.fcntl(near.fileno(), fcntl.F_DUPFD, HIGH))
    near.close()
    yield high, far
    high.close()
    far.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_client_that_waits_has_not_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    assert near.fileno() >= HIGH
    assert not is_readable(near, 0.0)
    assert not has_gone(near)
    far.sendall(b"GET")
    assert is_readable(near, 0.0)
    assert not has_gone(near)


def test_a_client_that_has_closed_has_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    far.close()
    assert has_gone(near)


def test_who_leaves_is_told_of_and_who_was_let_go_is_not() -> None:
    disconnects, told = DisconnectWatcher(), SimpleQueue[str]()
    pairs = {name: socket.socketpair() for name in ("let go", "left")}
    for name, (near, _) in pairs.items():
        disconnects.watch(near, partial(told.put, name))
    disconnects.let_go(pairs["let go"][0])
    for _, far in pairs.values():
        far.sendall(b"GET")
        far.close()
    assert told.get(timeout=30) == "left"
    assert told.empty()
    for near, _ in pairs.values():
        near.close()
