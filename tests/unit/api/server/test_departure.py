from __future__ import annotations

import fcntl
import resource
import socket
from collections.abc import Iterator

import pytest

from api.server.departure import has_gone
from tests.builders.daemon import wait_until

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
    assert not has_gone(near)
    far.sendall(b"GET")
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
    (half_near, half), (closing_near, closing) = connect(family), connect(family)
    half.shutdown(socket.SHUT_WR)
    closing.shutdown(socket.SHUT_WR)
    assert not has_gone(half_near) and not has_gone(closing_near)
    closing.close()
    wait_until(lambda: has_gone(closing_near), "the close is noticed")
    assert not has_gone(half_near)
    half.close()
    wait_until(lambda: has_gone(half_near), "the close is noticed")
    half_near.close()
    closing_near.close()
    assert has_gone(half_near)


def test_a_client_that_resets_its_connection_has_gone() -> None:
    near, far = connect(socket.AF_INET)
    near.sendall(b"not read")
    far.close()
    assert has_gone(near)
    near.close()
