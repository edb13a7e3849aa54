from __future__ import annotations

import json
import resource
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask

import api.server.connection
import api.server.server
from api.reply import reply
from api.server.connection import Connection
from api.server.deferred import SURPLUS, DeferredResponse
from api.server.server import HttpServer
from delen.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def serving(
    app: Callable[..., Any], threads: int, connections: int = 10
) -> Iterator[tuple[str, int]]:
    server = HttpServer(app, threads, connections)
    host, port = server.listen_tcp("127.0.0.1", 0).removeprefix("http://").rsplit(":", 1)
    server.start()
    try:
        yield host, int(port)
    finally:
        server.stop()


def test_more_connections_than_files_may_be_open_are_refused() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        pytest.skip("any number of files may be open here")
    with pytest.raises(ConfigError, match=f"server.connections needs .* may have {hard}"):
        HttpServer(lambda environ, start_response: [], 1, hard)


def test_a_client_that_leaves_before_its_answer_is_awaited_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, noticed, given_up = threading.Event(), threading.Event(), threading.Event()
    never: Future[None] = Future()
    notice = Connection._note_disconnect

    def notice_and_tell(connection: Connection) -> None:
        notice(connection)
        noticed.set()

    monkeypatch.setattr(Connection, "_note_disconnect", notice_and_tell)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        entered.set()
        assert noticed.wait(10.0)
        later = DeferredResponse([never], lambda: reply({}), given_up.set, bool)
        return later(environ, start_response)

    with serving(answer, 2) as address:
        with socket.create_connection(address) as client:
            client.sendall(REQUEST)
            assert entered.wait(10.0)
        assert given_up.wait(10.0)
        never.set_result(None)


@pytest.mark.parametrize(
    "begun", [b"Content-Length: 10\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"]
)
def test_a_client_whose_body_stops_coming_is_told_so_and_nothing_is_logged(
    make_app: Callable[..., Flask],
    begun: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(api.server.server, "_REQUEST_TIMEOUT", 0.5)
    with serving(make_app(), 1) as address, socket.create_connection(address) as client:
        client.settimeout(10.0)
        client.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\n" + begun)
        received = b"".join(iter(partial(client.recv, 65_536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ") and b"Connection: close" in head
    assert json.loads(body)["code"] == "request_timeout"
    assert not caplog.records


def tell_surplus(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return reply({"surplus": environ[SURPLUS]})(environ, start_response)


def test_connections_beyond_the_surplus_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.server.server, "_SURPLUS", 1)
    with serving(tell_surplus, 1, connections=2) as address, ExitStack() as opened:
        clients = [
            opened.enter_context(socket.create_connection(address, timeout=10.0)) for _ in range(4)
        ]
        with suppress(ConnectionResetError):
            assert clients[3].recv(1) == b""
        for client, is_surplus in ((clients[2], True), (clients[0], False)):
            client.sendall(REQUEST)
            _, _, body = receive(client, b"}").partition(b"\r\n\r\n")
            assert json.loads(body) == {"surplus": is_surplus}


def test_idle_connections_keep_a_third() -> None:
    with serving(tell_surplus, 1, connections=9) as address, ExitStack() as opened:
        is_kept = []
        for _ in range(5):
            client = opened.enter_context(socket.create_connection(address, timeout=10.0))
            client.sendall(REQUEST)
            is_kept.append(b"connection: close" not in receive(client, b"}").lower())
        assert is_kept == [True] * 3 + [False] * 2


def receive(client: socket.socket, end: bytes) -> bytes:
    """What the server sends, up to ``end``."""
    received = b""
    while not received.endswith(end):
        piece = client.recv(65_536)
        assert piece, f"closed after {received!r}"
        received += piece
    return received


REFUSED = b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"


def test_a_client_is_refused_before_the_rest_of_its_body_came(
    make_app: Callable[..., Flask],
) -> None:
    with serving(make_app(), 1) as address, socket.create_connection(address) as client:
        client.settimeout(5.0)
        for _ in range(2):  # over one connection
            client.sendall(REFUSED)
            assert receive(client, b"}").startswith(b"HTTP/1.1 404 ")
            client.sendall(b" " * 9)


def test_a_refused_client_whose_body_stops_coming_is_closed(
    make_app: Callable[..., Flask],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(api.server.server, "_REQUEST_TIMEOUT", 0.5)
    with serving(make_app(), 1) as address, socket.create_connection(address) as client:
        client.settimeout(10.0)
        client.sendall(REFUSED)
        received = b"".join(iter(partial(client.recv, 65_536), b""))
    assert received.startswith(b"HTTP/1.1 404 ") and received.count(b"HTTP/1.1") == 1
    assert not caplog.records


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that waits longer than a test for what a client it closes may still send."""
    monkeypatch.setattr(api.server.connection, "_DISCARD_WAIT", 60.0)
    monkeypatch.setattr(api.server.connection, "_DISCARD_SECONDS", 60.0)


TOO_LARGE = b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" + b" " * 20_000


@pytest.mark.usefixtures("patient")
def test_no_thread_waits_for_the_rest_of_a_body_that_is_there(
    make_app: Callable[..., Flask],
) -> None:
    with serving(make_app(), 1) as address, socket.create_connection(address) as client:
        client.settimeout(10.0)
        client.sendall(TOO_LARGE)
        assert receive(client, b"}").startswith(b"HTTP/1.1 413 ")
        with socket.create_connection(address) as other:
            other.settimeout(10.0)
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert receive(other, b"}").startswith(b"HTTP/1.1 200 ")


@pytest.mark.usefixtures("patient")
def test_a_client_that_is_closed_need_not_wait_for_that(make_app: Callable[..., Flask]) -> None:
    whole = b"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with serving(make_app(), 1) as address, socket.create_connection(address) as client:
        client.settimeout(10.0)
        client.sendall(whole)
        received = b"".join(iter(partial(client.recv, 65_536), b""))
    assert received.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("is_last", [True, False])
def test_an_answer_that_cannot_be_made_is_told_of_once(
    is_last: bool, caplog: pytest.LogCaptureFixture, failed: Callable[[str], int]
) -> None:
    asked: Queue[Future[None]] = Queue()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        asked.put(ended := Future[None]())
        return DeferredResponse([ended], fail, lambda: None, lambda: is_last)(
            environ, start_response
        )

    def fail() -> Any:
        raise ZeroDivisionError("made to fail")

    with serving(answer, 1) as address:
        for path in (b"/", b"/made-up"):
            with socket.create_connection(address) as client:
                client.settimeout(10.0)
                client.sendall(REQUEST.replace(b"/ ", path + b" ", 1))
                asked.get(timeout=10.0).set_result(None)
                received = b"".join(iter(partial(client.recv, 65_536), b""))
            assert received.startswith(b"HTTP/1.1 500 ")
    assert len(caplog.records) == 1, "paths that clients make up fill neither log nor memory"
    assert "made to fail" in caplog.text
    assert failed("http") == 2


@pytest.mark.parametrize("length", [10, 10_000_000])
def test_who_ends_the_last_request_sends_what_the_client_takes_at_once(length: int) -> None:
    asked: Queue[Future[None]] = Queue()
    go_on = threading.Event()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            asked.put(Future())
            assert go_on.wait(10.0)
            return reply({})(environ, start_response)
        ended: Future[None] = Future()
        asked.put(ended)
        later = DeferredResponse(
            [ended], lambda: reply({"": "x" * length}), lambda: None, lambda: True
        )
        return later(environ, start_response)

    with serving(answer, 1) as address, socket.create_connection(address) as client:
        client.settimeout(10.0)
        client.sendall(REQUEST)
        ended = asked.get(timeout=10.0)
        with socket.create_connection(address) as other:
            other.sendall(REQUEST.replace(b"POST", b"GET"))
            asked.get(timeout=10.0)  # the one thread is busy from now on
            ended.set_result(None)
            assert client.recv(12) == b"HTTP/1.1 200"
            go_on.set()
            received = bytearray()
            while not received.endswith(b'"}'):
                received += client.recv(65_536)
    assert received.endswith(b'{"":"' + b"x" * length + b'"}')


def test_a_server_that_waits_for_clients_is_woken_to_stop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cheroot.server.HTTPServer.expiration_interval", 3600.0)
    server = HttpServer(lambda environ, start_response: [], 1, 10)
    server.listen_tcp("127.0.0.1", 0)
    server.listen_unix(str(tmp_path / "d.sock"))
    server.start()
    stopping = threading.Thread(target=server.stop, daemon=True)
    stopping.start()
    stopping.join(30.0)
    assert not stopping.is_alive()
    assert not (tmp_path / "d.sock").exists()
