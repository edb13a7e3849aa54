from __future__ import annotations

import json
import resource
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask

import api.serve
from api.connection import Connection
from api.later import Later
from api.reply import reply
from api.serve import HttpServer
from delen.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def serving(app: Callable[..., Any], threads: int) -> Iterator[tuple[str, int]]:
    server = HttpServer(app, threads, 10)
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
    notice = Connection._note_departure

    def notice_and_tell(connection: Connection) -> None:
        notice(connection)
        noticed.set()

    monkeypatch.setattr(Connection, "_note_departure", notice_and_tell)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        entered.set()
        assert noticed.wait(10.0)
        later = Later([never], lambda: reply({}), given_up.set, bool)
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
    monkeypatch.setattr(api.serve, "_REQUEST_TIMEOUT", 0.5)
    with serving(make_app(), 1) as address, socket.create_connection(address) as client:
        client.settimeout(10.0)
        client.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\n" + begun)
        received = b"".join(iter(partial(client.recv, 65_536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ") and b"Connection: close" in head
    assert json.loads(body)["code"] == "request_timeout"
    assert not caplog.records


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
        later = Later([ended], lambda: reply({"": "x" * length}), lambda: None, lambda: True)
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
    assert received.endswith(b'{"": "' + b"x" * length + b'"}')


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
