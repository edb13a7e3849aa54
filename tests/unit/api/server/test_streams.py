from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from api.server.streams import Incoming, Outgoing

SIZE = 64
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_lines_and_bodies_are_read_as_they_were_sent(pair: Pair) -> None:
    incoming = Incoming(pair[0], SIZE)
    pair[1].sendall(b"first\r\nsecond\r\nbodynext\r\n")
    assert incoming.readline(256) == b"first\r\n"
    assert incoming.has_data()
    assert incoming.readline(256) == b"second\r\n"
    assert incoming.read(4) == b"body"
    assert incoming.readline(256) == b"next\r\n"
    assert not incoming.has_data()


@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_line_that_is_longer_comes_in_parts(pair: Pair, size: int) -> None:
    pair[1].sendall(b"a long line\nthe next\n")
    incoming, parts = Incoming(pair[0], SIZE), []
    while not parts or not parts[-1].endswith(b"\n"):
        parts.append(incoming.readline(size))
    assert b"".join(parts) == b"a long line\n"
    assert all(len(part) == size for part in parts[:-1])


def test_what_comes_in_pieces_is_put_together(pair: Pair) -> None:
    incoming = Incoming(pair[0], SIZE)
    pair[1].sendall(b"be")
    assert incoming.readline(2) == b"be"
    pair[1].sendall(b"gin")
    assert incoming.readline(3) == b"gin"
    pair[1].sendall(b"li")
    assert incoming.read(1) == b"l"
    pair[1].sendall(b"ne\nrest")
    assert incoming.readline(256) == b"ine\n"
    assert incoming.read(4) == b"rest"


def test_the_end_cuts_lines_and_bodies_short(pair: Pair) -> None:
    incoming = Incoming(pair[0], SIZE)
    pair[1].sendall(b"half a line")
    pair[1].shutdown(socket.SHUT_WR)
    assert incoming.readline(5) == b"half "
    assert incoming.readline(256) == b"a line"
    assert incoming.readline(256) == b""
    assert incoming.read(10) == b""


def test_more_than_the_socket_takes_at_once_is_written_whole(pair: Pair) -> None:
    whole = bytes(range(256)) * 4096
    pair[0].setblocking(True)
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    received = bytearray()

    def read() -> None:
        while len(received) < len(whole):
            received.extend(pair[1].recv(65_536))

    reader = threading.Thread(target=read)
    reader.start()
    Outgoing(pair[0], SIZE).write(whole)
    reader.join()
    assert received == whole


def test_what_is_not_taken_at_once_is_left() -> None:
    near, far = socket.socketpair()
    near.settimeout(10.0)
    outgoing = Outgoing(near, SIZE)
    assert outgoing.write_some(b"all of it") == b""
    whole = bytes(range(256)) * 40_000
    left = outgoing.write_some(whole)
    assert left and whole.endswith(left)
    assert outgoing.write_some(left) == left
    far.close()
    assert outgoing.write_some(left) == left
    near.close()


def test_nothing_to_read_is_said_at_once_and_who_broke_off_is_at_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        near, _ = server.accept()
        near.settimeout(10.0)
        incoming = Incoming(near, SIZE)
        assert not incoming.has_data()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        with near:
            select.select([near], [], [], 10.0)
            assert incoming.has_data()
            assert incoming.read(1) == b""
