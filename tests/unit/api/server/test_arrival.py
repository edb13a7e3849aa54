"""When requests came that nobody read at first."""

from __future__ import annotations

import select
import socket
import time

from api.server.arrival import LULL, ArrivalClock


def test_the_kernel_says_how_long_bytes_waited_in_a_tcp_connection() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
        listening.accept()[0] as served,
    ):
        clock = ArrivalClock()
        client.sendall(b"GET")
        time.sleep(3 * LULL)  # for which nobody reads
        now = time.monotonic()
        assert now - clock.arrival(served) > LULL
        assert now - clock.arrival(served) > LULL, "nor is the next one of the lull on time"


def test_what_comes_after_a_lull_and_is_read_at_once_has_not_waited() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
        listening.accept()[0] as served,
    ):
        clock = ArrivalClock()
        time.sleep(2 * LULL)  # in which nobody sends
        sent = time.monotonic()
        client.sendall(b"GET")
        select.select([served], [], [])
        assert clock.arrival(served) > sent - LULL / 2


def test_of_a_unix_socket_it_is_not_known() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = time.monotonic()
        assert before <= ArrivalClock().arrival(ours) <= time.monotonic()
