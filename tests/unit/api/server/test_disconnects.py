from __future__ import annotations

import fcntl
import resource
import socket
import threading
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


def connect(family: socket.AddressFamily) -> tuple[socket.socket, socket.socket]:
    """A connection: the server's end and the client's."""
    if family == socket.AF_UNIX:
        return socket.socketpair()
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with socket.socket(family) as listener:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip(f"there is no {host} here")
        listener.listen()
        client = socket.create_connection(listener.getsockname()[:2])
        return listener.accept()[0], client


FAMILIES = [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_that_only_ends_its_request_is_there_until_it_closes(
    family: socket.AddressFamily,
) -> None:
    disconnects, told = DisconnectWatcher(), SimpleQueue[str]()
    half, closing = connect(family), connect(family)
    for name, (near, _) in {"half": half, "closing": closing}.items():
        disconnects.watch(near, partial(told.put, name))
    half[1].shutdown(socket.SHUT_WR)
    closing[1].shutdown(socket.SHUT_WR)
    assert not has_gone(half[0]) and not has_gone(closing[0])
    closing[1].close()
    assert told.get(timeout=30) == "closing"
    assert has_gone(closing[0]) and not has_gone(half[0])
    half[1].close()
    assert told.get(timeout=30) == "half"
    for near, _ in (half, closing):
        near.close()


def test_a_client_that_resets_its_connection_has_gone() -> None:
    near, far = connect(socket.AF_INET)
    near.sendall(b"not read")
    far.close()
    assert has_gone(near)
    near.close()


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


def test_a_connection_that_closes_while_it_is_looked_at_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disconnects, told = DisconnectWatcher(), SimpleQueue[str]()
    half, other = connect(socket.AF_INET), socket.socketpair()
    disconnects.watch(half[0], partial(told.put, "half"))
    disconnects.watch(other[0], partial(told.put, "other"))
    looked_up = threading.Event()

    def look_up(connection: socket.socket) -> bool:
        disconnects.let_go(connection)
        connection.close()
        looked_up.set()
        return True

    monkeypatch.setattr("api.server.disconnects._is_held", look_up)
    half[1].shutdown(socket.SHUT_WR)
    assert looked_up.wait(30)
    other[1].close()
    assert told.get(timeout=5) == "other"
    half[1].close()
    other[0].close()
