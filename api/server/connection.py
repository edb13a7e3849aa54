"""One connection and its requests: cheroot's, that give their thread back while they wait."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from io import BytesIO
from typing import Any

from cheroot import wsgi
from cheroot.server import HTTPConnection

from api.server.chunked_body import ChunkedBody
from api.server.deferred import ARRIVED, PROCESSOR, SURPLUS, SUSPENDS, DeferredResponse
from api.server.disconnects import DisconnectWatcher, is_readable
from api.server.sized_body import SizedBody
from api.server.streams import open_stream

_LINGER = 0.002
_DISCARD_WAIT = 0.5
_DISCARD_SECONDS = 2.0
_MOST_DISCARDED = 1 << 25
_PIECE = 65_536
_FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class ConnectionLimit:
    """How many connections are open, at all addresses together.

    Those beyond ``most`` are told so; those beyond ``most`` and ``surplus`` are closed.
    """

    def __init__(self, most: int, surplus: int) -> None:
        self._most = most
        self._surplus = surplus
        self._open = 0
        self._lock = threading.Lock()

    @property
    def is_over(self) -> bool:
        """Whether there is no room even to tell a client that there is none."""
        return self._open > self._most + self._surplus

    def enter(self) -> bool:
        """One more; true if it is beyond ``most``."""
        with self._lock:
            self._open += 1
            return self._open > self._most

    def leave(self) -> None:
        with self._lock:
            self._open -= 1


class Gateway(wsgi.Gateway_10):
    """WSGI 1.0 with a reader of chunks, the time of arrival, and answers that come later."""

    _unsent: bytes | None = None

    def get_environ(self) -> dict[str, Any]:
        connection, body = self.req.conn, self.req.rfile
        if self.req.chunked_read:
            self.req.rfile = ChunkedBody(connection.rfile)
        else:
            self.req.rfile = SizedBody(connection.rfile, body.remaining)
        environ: dict[str, Any] = super().get_environ()
        environ[ARRIVED] = connection.arrived
        environ[PROCESSOR] = connection.processor
        environ[SURPLUS] = connection.is_surplus
        environ[SUSPENDS] = True
        return environ

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        if ("Connection", "close") in headers:
            self.req.close_connection = True  # cheroot by itself would keep it
        return super().start_response(status, headers, exc_info)

    def respond(self) -> None:
        answer = self.req.server.wsgi_app(self.env, self.start_response)
        if isinstance(answer, DeferredResponse):
            self.req.sent_headers = True  # else cheroot would send a head now
            self.req.conn.suspend(self, answer)
        else:
            self._send(self._compose(answer))

    def start(self, later: DeferredResponse) -> None:
        """Send of the answer that is there by now what the client takes at once."""
        self._unsent = self._compose_later(later)
        self._unsent = self.req.conn.wfile.write_some(self._unsent)

    def resume(self, later: DeferredResponse) -> bool:
        """Send what was not sent of the answer; whether the connection can be kept."""
        self._send(self._compose_later(later) if self._unsent is None else self._unsent)
        return not self.req.close_connection

    def _compose_later(self, later: DeferredResponse) -> bytes:
        self.req.sent_headers = False
        try:
            return self._compose(later.make()(self.env, self.start_response))
        except Exception as error:
            self.req.server.requests.failures.failed(error, "the answer to a request failed")
            self.req.close_connection = True
            return _FAILED

    def _compose(self, answer: Iterable[bytes]) -> bytes:
        """The head and the body of ``answer``, to leave in one write: cheroot sends the head on its
        own, which wakes the client twice."""
        connection = self.req.conn
        if connection.is_surplus:
            self.req.close_connection = True
        self.req.outheaders.append((b"Date", _date(int(time.time()))))
        whole = BytesIO()
        file, connection.wfile = connection.wfile, whole
        try:
            for piece in answer:
                self.write(piece)
            self.req.ensure_headers_sent()
        finally:
            connection.wfile = file
            if hasattr(answer, "close"):
                answer.close()
        return whole.getvalue()

    def _send(self, whole: bytes) -> None:
        connection, body = self.req.conn, self.req.rfile
        if whole:
            connection.wfile.write(whole)
        if body.ended:
            return
        if isinstance(body, SizedBody) and not self.req.close_connection:
            self.req.close_connection = not _pass_over(body)
        else:
            self.req.close_connection = True  # what is left would be read as the next request
            _discard(connection, body)


class Connection(HTTPConnection):
    """A connection that knows when its request came, and holds no thread while it waits.

    A thread that has written an answer waits a moment for the next request, which an app in a loop
    sends at once, before it hands the connection back to the thread that watches all of them.

    ``arrived`` is when the present request could be read (``time.monotonic``), ``processor`` the
    processor time of its thread when that began to. ``is_surplus`` is true beyond the connections
    that are served.
    """

    def __init__(
        self,
        places: ConnectionLimit,
        disconnects: DisconnectWatcher,
        server: wsgi.Server,
        accepted: socket.socket,
        *others: object,
    ) -> None:
        super().__init__(server, accepted, open_stream)
        self._places = places
        self._disconnects = disconnects
        self.arrived = self.processor = 0.0
        self._is_new = True
        self._is_open = True
        self._client_left = False
        self._suspended: tuple[Gateway, DeferredResponse] | None = None
        disconnects.watch(accepted, self._note_disconnect)
        self.is_surplus = places.enter()

    def _note_disconnect(self) -> None:
        self._client_left = True
        suspended = self._suspended
        if suspended is not None:
            suspended[1].give_up()

    def arrives(self) -> bool:
        self.arrived = time.monotonic()
        if not self._is_new:
            return True
        self._is_new = False
        if self._places.is_over:
            self.close()
            return False
        if not is_readable(self.socket, 0.0):
            self.server.put_conn(self)  # a client that only connects holds no thread
            return False
        return True

    def suspend(self, gateway: Gateway, later: DeferredResponse) -> None:
        """The answer comes later."""
        self._suspended = gateway, later

    def communicate(self) -> bool:
        keep = self._resume() if self._suspended else self._read()
        while keep and self._suspended is None and self.server.ready:
            if not self.rfile.has_data():
                wait = 0.0 if self.server.requests.is_crowded else _LINGER
                if not is_readable(self.socket, wait):
                    break
            self.arrived = time.monotonic()
            keep = self._read()
        return keep

    def _read(self) -> bool:
        self.processor = time.thread_time()
        keep: bool = super().communicate()
        return keep

    def _resume(self) -> bool:
        assert self._suspended is not None
        (gateway, later), self._suspended = self._suspended, None
        try:
            return gateway.resume(later)
        except OSError:
            return False  # the client has gone

    def leave(self, keep: bool) -> None:
        if self._suspended is not None:
            _, later = self._suspended
            if self._client_left:
                later.give_up()
            later.when_ended(self._answer)
        elif keep:
            self.server.put_conn(self)
        else:
            self.close()

    def _answer(self) -> None:
        """On the thread that ended the request, which sends the answer where nobody else waits for
        that thread: another would have to be woken for it."""
        assert self._suspended is not None
        gateway, later = self._suspended
        try:
            if later.is_last():
                gateway.start(later)
        finally:
            self.server.requests.put_answer(self)

    def hang_up(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._places.leave()
            self._disconnects.let_go(self.socket)
        super().close()
        with suppress(OSError):
            self.wfile.close()  # what the client did not take would be written when it is freed


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    """The Date of a head, kept while it is true: cheroot writes each anew, which takes longer than
    all else of a head."""
    return formatdate(second, usegmt=True).encode()


def _pass_over(body: SizedBody) -> bool:
    """Read ``body`` to its end, if that comes. A client may send all before it reads an answer."""
    with suppress(OSError):
        while body.read(_PIECE):
            continue
    return body.ended


def _discard(connection: Connection, body: SizedBody | ChunkedBody) -> None:
    """Take in what a refused client still sends of ``body``. A connection that is closed over
    unread bytes is reset, and a client that sends all before it reads never sees why."""
    sender, end, left = connection.socket, time.monotonic() + _DISCARD_SECONDS, _MOST_DISCARDED
    if isinstance(body, SizedBody):
        left = min(left, body.left - connection.rfile.at_hand())
    with suppress(OSError):
        sender.shutdown(socket.SHUT_WR)  # it need not wait for the rest
        while left > 0 and is_readable(sender, min(_DISCARD_WAIT, end - time.monotonic())):
            piece = sender.recv(_PIECE)
            if not piece:
                return
            left = left - len(piece) if time.monotonic() < end else 0
