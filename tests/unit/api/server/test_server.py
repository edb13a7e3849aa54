"""The server with applications of the tests' own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import api.server.body
import api.server.listener
import api.server.server
from api.server.body import BodyMemory, ClientGone, RequestBody
from api.server.connection import KEY, Connection, Patience
from api.server.server import HttpServer
from api.server.socket_file import SocketFile
from delen.errors import ConfigError, DelenError
from tests.builders.daemon import wait_until

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
LIMIT = 100_000


async def answer(scope: Any, receive: Any, send: Any, refuse: bool = False) -> None:
    """Answers what it has read, or the code of the error."""
    connection: Connection = scope["state"][KEY]
    body = RequestBody(connection, dict(scope["headers"]), receive, BodyMemory(1e9))
    try:
        said: dict[str, Any] = {"surplus": connection.is_surplus, "path": scope["path"]}
        if not refuse:
            body.check(LIMIT)
            said["read"] = len(await body.read(LIMIT))
    except DelenError as error:
        said = {"code": error.code, "error": str(error)}
    except ClientGone:
        connection.request_ended()
        return
    text = json.dumps(said).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    if connection.is_crowded:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text, "more_body": not body.has_ended})
    if not body.has_ended:
        if not await body.discard():
            connection.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    connection.request_ended()


@contextmanager
def serving(
    app: Any = answer, connections: int = 10, patience: Patience | None = None
) -> Iterator[tuple[str, int]]:
    server = HttpServer(app, connections, patience or Patience())
    host, port = server.listen_tcp("127.0.0.1", 0).removeprefix("http://").rsplit(":", 1)
    server.start()
    try:
        yield host, int(port)
    finally:
        server.stop()


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=20.0)


def receive(client: socket.socket, end: bytes = b"}") -> bytes:
    """What the server sends, up to ``end``."""
    received = b""
    while not received.endswith(end):
        piece = client.recv(65_536)
        assert piece, f"closed after {received!r}"
        received += piece
    return received


def receive_all(client: socket.socket) -> bytes:
    """What the server sends until it closes."""
    received = b""
    with suppress(ConnectionResetError):
        for piece in iter(partial(client.recv, 65_536), b""):
            received += piece
    return received


def said(received: bytes) -> Any:
    return json.loads(received.partition(b"\r\n\r\n")[2])


def test_more_connections_than_files_may_be_open_are_refused() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        pytest.skip("any number of files may be open here")
    with pytest.raises(ConfigError, match=f"server.connections needs .* may have {hard}"):
        HttpServer(answer, hard, Patience())


def test_connections_beyond_the_surplus_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.server.server, "_SURPLUS", 1)
    with serving(connections=2) as address, ExitStack() as opened:
        clients = [opened.enter_context(connect(address)) for _ in range(4)]
        with suppress(ConnectionResetError):
            assert clients[3].recv(1) == b""
        for client, is_surplus in ((clients[2], True), (clients[0], False)):
            client.sendall(REQUEST)
            assert said(receive(client))["surplus"] is is_surplus


def test_once_two_thirds_are_open_answers_close() -> None:
    with serving(connections=9) as address, ExitStack() as opened:
        is_kept = []
        for _ in range(8):
            client = opened.enter_context(connect(address))
            client.sendall(REQUEST)
            is_kept.append(b"connection: close" not in receive(client).lower())
        assert is_kept[:6] == [True] * 6 and is_kept[6] is False


@pytest.mark.parametrize(
    "end", [b"Content-Length: 5\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"]
)
def test_requests_are_passed_on_one_at_a_time(end: bytes) -> None:
    body = b"5\r\nabcde\r\n0\r\n\r\n" if b"chunked" in end else b"abcde"
    one = b"POST /%d HTTP/1.1\r\nHost: x\r\n" + end + body
    whole = b"".join(one % number for number in range(20))
    with serving() as address, connect(address) as client:
        client.sendall(whole)
        file = client.makefile("rb")
        for number in range(20):
            head = b"".join(iter(file.readline, b"\r\n")).lower()
            read = json.loads(file.read(int(head.partition(b"content-length: ")[2].split()[0])))
            assert read == {"surplus": False, "path": f"/{number}", "read": 5}


def test_nothing_is_read_of_what_follows_the_last_request() -> None:
    asked = SimpleQueue[str]()

    async def note(scope: Any, receive: Any, send: Any) -> None:
        asked.put(scope["path"])
        await answer(scope, receive, send)

    last = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with serving(note) as address, connect(address) as client:
        client.sendall(last + REQUEST)
        assert receive_all(client).count(b"HTTP/1.1 200") == 1
    assert asked.get() == "/last" and asked.empty()


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_request_may_come_in_pieces(step: int) -> None:
    whole = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n" + b"x" * 90
    with serving() as address, connect(address) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            for start in range(0, len(whole), step):
                client.sendall(whole[start : start + step])
            assert said(receive(client))["read"] == 90


@pytest.mark.parametrize("begun", [b"GET / HT", b"\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_has_a_time_by_which_it_is_whole(begun: bytes) -> None:
    """However often another byte of it comes."""
    with serving(patience=Patience(head=0.5)) as address, connect(address) as client:
        client.sendall(begun)
        stopped = threading.Event()

        def drip() -> None:
            while not stopped.wait(0.05):
                with suppress(OSError):
                    client.sendall(b"a" if begun.endswith(b"T") else b"A: b\r\n")

        dripping = threading.Thread(target=drip)
        dripping.start()
        received = receive_all(client)
        stopped.set()
        dripping.join()
    assert received.startswith(b"HTTP/1.1 408 ")
    assert said(received)["code"] == "request_timeout"


def test_a_head_that_is_too_large_is_refused() -> None:
    with serving() as address, connect(address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nA: " + b"x" * 66_000)
        received = receive_all(client)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert said(received)["code"] == "too_large"


@pytest.mark.parametrize(
    "begun", [b"Content-Length: 5000\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1388\r\n{"]
)
def test_a_body_has_to_keep_its_rate(begun: bytes) -> None:
    """However often another byte of it comes."""
    patience = Patience(head=0.3, body_rate=100.0)
    with serving(patience=patience) as address, connect(address) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + begun)
        stopped = threading.Event()

        def drip() -> None:
            while not stopped.wait(0.05):
                with suppress(OSError):
                    client.sendall(b"a")

        dripping = threading.Thread(target=drip)
        dripping.start()
        received = receive(client)
        stopped.set()
        dripping.join()
    assert said(received)["code"] == "request_timeout"


def test_a_body_that_keeps_its_rate_is_read() -> None:
    patience = Patience(head=0.2, body_rate=10_000.0)
    with serving(patience=patience) as address, connect(address) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n")
        for _ in range(50):
            client.sendall(b"x" * 1000)
            threading.Event().wait(0.01)
        assert said(receive(client))["read"] == 50_000


@pytest.mark.parametrize("is_late", [False, True])
def test_a_head_leaves_with_its_body_or_soon(is_late: bool) -> None:
    go_on = threading.Event()

    async def talk(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while is_late and not go_on.is_set():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"x"})
        scope["state"][KEY].request_ended()

    with serving(talk) as address, connect(address) as client:
        for _ in range(20):
            client.sendall(REQUEST)
            received = client.recv(65_536)
            assert received.endswith(b"\r\n\r\n" if is_late else b"\r\n\r\nx")
            go_on.set()
            if is_late:
                assert client.recv(65_536) == b"x"
                go_on.clear()


def test_who_connects_and_sends_nothing_is_closed() -> None:
    with serving(patience=Patience(idle=0.2)) as address, connect(address) as client:
        assert client.recv(1) == b""
        with connect(address) as other:
            other.sendall(REQUEST)
            receive(other)
            assert other.recv(1) == b""


def test_who_takes_nothing_of_its_answer_is_closed() -> None:
    is_gone = threading.Event()

    async def talk(scope: Any, receive: Any, send: Any) -> None:
        scope["state"][KEY].on_gone = is_gone.set
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not is_gone.is_set():
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})

    with serving(talk, patience=Patience(idle=0.3)) as address, connect(address) as client:
        client.sendall(REQUEST)
        assert is_gone.wait(20)


@pytest.mark.parametrize("half_closes", [False, True])
def test_a_client_that_leaves_before_its_answer_is_noticed(half_closes: bool) -> None:
    """One that only sends no more is not: it still waits."""
    told = SimpleQueue[str]()
    go_on = threading.Event()

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        connection: Connection = scope["state"][KEY]
        connection.on_gone = partial(told.put, "gone")
        told.put("came")
        while not go_on.is_set() and told.qsize() < 2:
            await asyncio.sleep(0.01)
        await answer(scope, receive, send)

    with serving(wait) as address:
        client = connect(address)
        client.sendall(REQUEST)
        assert told.get(timeout=20) == "came"
        if half_closes:
            client.shutdown(socket.SHUT_WR)
            threading.Event().wait(0.3)
            assert told.empty()
            go_on.set()
            assert receive_all(client).endswith(b"}"), "the answer, and then the end"
        else:
            client.close()
            assert told.get(timeout=20) == "gone"
        client.close()


def test_a_refused_client_may_send_the_rest_of_its_body() -> None:
    refused = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"
    with serving(partial(answer, refuse=True)) as address, connect(address) as client:
        for _ in range(2):
            client.sendall(refused)
            receive(client)
            client.sendall(b" " * 9)


def test_a_refused_client_whose_body_goes_on_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.server.body, "_MOST_DISCARDED", 1_000_000)
    refused = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"
    with serving(partial(answer, refuse=True)) as address, connect(address) as client:
        client.sendall(refused)
        sent = 0
        with suppress(OSError):
            while sent < 100_000_000:
                sent += client.send(b" " * 65_536)
        assert sent < 50_000_000


def test_what_was_discarded_may_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.server.body, "_DISCARD_SECONDS", 0.2)
    refused = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"
    with serving(partial(answer, refuse=True)) as address, connect(address) as client:
        client.sendall(refused)
        assert receive_all(client).count(b"HTTP/1.1") == 1


def test_where_no_file_can_be_opened_clients_wait_and_it_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(api.server.listener, "_TRY_AGAIN", 0.01)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving() as address, ExitStack() as opened, caplog.at_level(logging.INFO):
        client = socket.socket()
        client.settimeout(20.0)
        opened.enter_context(client)
        with connect(address) as first:  # all is loaded that a connection needs
            first.sendall(REQUEST)
            receive(first)
        spare = [os.dup(0) for _ in range(3)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(spare) + 1, hard))
        try:
            client.connect(address)
            client.sendall(REQUEST)
            wait_until(lambda: caplog.records, "it is logged")
            threading.Event().wait(0.2)
            assert len(caplog.records) == 1
            assert "accepted" in caplog.records[0].message
        finally:
            for each in spare:
                os.close(each)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert said(receive(client))["read"] == 0
    assert len(caplog.records) == 1


def test_a_server_that_waits_for_clients_stops(tmp_path: Path) -> None:
    server = HttpServer(answer, 10, Patience())
    server.listen_tcp("127.0.0.1", 0)
    server.listen_unix(SocketFile(str(tmp_path / "d.sock")))
    server.start()
    stopping = threading.Thread(target=server.stop, daemon=True)
    stopping.start()
    stopping.join(30.0)
    assert not stopping.is_alive()
    assert not (tmp_path / "d.sock").exists()


def test_what_is_left_of_empty_lines_is_no_request() -> None:
    """The parser skips it, so that nothing would be answered, and no deadline run."""
    odd = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n" + b"\r\n" * 4
    with serving(patience=Patience(idle=0.3)) as address, connect(address) as client:
        client.sendall(odd)
        assert said(receive(client))["read"] == 3
        client.sendall(REQUEST)
        assert said(receive(client))["read"] == 0
        client.sendall(odd)
        receive(client)
        assert receive_all(client) == b""


def test_a_loop_that_stands_is_behind_until_it_comes_round() -> None:
    stands, goes_on = threading.Event(), threading.Event()

    async def stand(scope: Any, receive: Any, send: Any) -> None:
        stands.set()
        goes_on.wait(20.0)
        await answer(scope, receive, send)

    server = HttpServer(stand, 10, Patience())
    host, port = server.listen_tcp("127.0.0.1", 0).removeprefix("http://").rsplit(":", 1)
    server.start()
    try:
        with connect((host, int(port))) as client:
            client.sendall(REQUEST)
            assert stands.wait(20.0)
            assert server.seconds_behind() == 0.0, "asked now"
            assert server.seconds_behind() > 0.0
            goes_on.set()
            receive(client)
        wait_until(lambda: server.seconds_behind() == 0.0, "the loop comes round")
    finally:
        goes_on.set()
        server.stop()
