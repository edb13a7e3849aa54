from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest

from api.connection import Connection
from api.later import Later
from api.reply import reply
from api.serve import HttpServer
from delen.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


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
        later = Later([never], lambda: reply({}), given_up.set)
        return later(environ, start_response)

    server = HttpServer(answer, 2, 10)
    host, port = server.listen_tcp("127.0.0.1", 0).removeprefix("http://").rsplit(":", 1)
    server.start()
    try:
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            assert entered.wait(10.0)
        assert given_up.wait(10.0)
    finally:
        never.set_result(None)
        server.stop()
