"""Connections of threads and of event loops, to a server that misbehaves."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import pytest

from delen.sdk.http import Answer, Endpoint, Late, Request, Unanswered, Unconnected
from delen.sdk.memory import LEAST
from delen.sdk.pools import AsyncPool, Pool

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Serve: TypeAlias = Callable[[socket.socket], None]
Ask: TypeAlias = Callable[..., list[Answer]]


@contextmanager
def serving(connections: Sequence[Serve], path: Path | None = None) -> Iterator[Endpoint]:
    """Serves one connection after the other, each as one of ``connections`` does: over TCP, or at
    the Unix socket ``path``."""
    with socket.socket(socket.AF_INET if path is None else socket.AF_UNIX) as server:
        server.bind(("127.0.0.1", 0) if path is None else str(path))
        server.listen()
        server.settimeout(20.0)

        def run() -> None:
            for serve in connections:
                with suppress(OSError):
                    accepted, _ = server.accept()
                    with accepted:
                        accepted.settimeout(20.0)
                        serve(accepted)

        thread = threading.Thread(target=run)
        thread.start()
        name = server.getsockname()
        yield Endpoint.of(f"unix://{path}" if path else f"http://127.0.0.1:{name[1]}", None)
        thread.join(30.0)
        assert not thread.is_alive()


def answer(times: int) -> Serve:
    def serve(connection: socket.socket) -> None:
        for _ in range(times):
            assert connection.recv(65_536).endswith(b"\r\n\r\nbody")
            connection.sendall(OK)

    return serve


def answer_then_close_at_the_next(connection: socket.socket) -> None:
    answer(1)(connection)
    connection.recv(65_536)


def refuse_unread(connection: socket.socket) -> None:
    connection.recv(10)
    connection.sendall(OK.replace(b"200 OK", b"413 Too Large"))
    connection.shutdown(socket.SHUT_WR)
    with suppress(OSError):
        while connection.recv(1 << 20):
            pass


def break_off(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(OK[:-1])


def close_at_once(connection: socket.socket) -> None:
    connection.recv(65_536)


def stay_silent(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def ask(endpoint: Endpoint, times: int = 1, body: bytes = b"body", wait: float = 20.0) -> list:
    pool = Pool(endpoint)
    request = Request("POST", "/", (body,))
    try:
        return [pool.exchange(request, wait) for _ in range(times)]
    finally:
        pool.close()


def ask_async(
    endpoint: Endpoint, times: int = 1, body: bytes = b"body", wait: float = 20.0
) -> list:
    async def run() -> list:
        pool = AsyncPool(endpoint)
        request = Request("POST", "/", (body,))
        try:
            return [await pool.exchange(request, wait) for _ in range(times)]
        finally:
            await pool.close()

    return asyncio.run(run())


both = pytest.mark.parametrize("ask", [ask, ask_async])


@both
def test_a_connection_is_used_again(ask: Ask) -> None:
    with serving([answer(3)]) as endpoint:
        assert ask(endpoint, 3) == [Answer(200, b"ok")] * 3


@both
@pytest.mark.parametrize("first", [answer(1), answer_then_close_at_the_next])
def test_a_kept_connection_that_was_closed_is_replaced(ask: Ask, first: Serve) -> None:
    with serving([first, answer(1)]) as endpoint:
        assert ask(endpoint, 2) == [Answer(200, b"ok")] * 2


@both
def test_a_body_that_is_refused_unread_gets_the_refusal(ask: Ask) -> None:
    with serving([refuse_unread]) as endpoint:
        assert ask(endpoint, body=bytes(5_000_000)) == [Answer(413, b"ok")]


@both
def test_an_answer_that_breaks_off_is_none_and_not_asked_for_again(ask: Ask) -> None:
    with serving([break_off]) as endpoint, pytest.raises(Unanswered):
        ask(endpoint)


@both
def test_a_connection_that_breaks_says_nothing_of_memory(ask: Ask, tmp_path: Path) -> None:
    with serving([close_at_once, refuse_unread], tmp_path / "s") as endpoint:
        assert ask(endpoint, body=bytes(LEAST)) == [Answer(413, b"ok")]
    assert endpoint.sharing.works is None
    assert endpoint.sharing.is_worth_trying


@both
def test_who_waits_too_long_is_told(ask: Ask) -> None:
    with serving([stay_silent]) as endpoint, pytest.raises(Late):
        ask(endpoint, wait=0.2)


@both
def test_nobody_there_is_unconnected(ask: Ask) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for url in (f"http://127.0.0.1:{taken.getsockname()[1]}", "unix:///nowhere/d.sock"):
            with pytest.raises(Unconnected):
                ask(Endpoint.of(url, None))
