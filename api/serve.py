"""The HTTP server: cheroot's, on TCP and on a Unix socket, with one pool of threads each."""

from __future__ import annotations

import logging
import select
import socket
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from cheroot import wsgi
from cheroot.server import HTTPConnection

from api.app import DISCONNECTED
from api.chunks import ChunkedBody
from delen.errors import ConfigError

log = logging.getLogger("delen.http")

_REQUEST_TIMEOUT = 10.0
_SHUTDOWN_TIMEOUT = 2.0
_KEPT_CONNECTIONS = 1000
_LINGER = 0.002
_DISCARD_WAIT = 0.5
_DISCARD_SECONDS = 2.0
_MOST_DISCARDED = 1 << 25
_LARGEST_HEAD = 65_536


class _Gateway(wsgi.Gateway_10):
    """WSGI 1.0 with a way to ask whether the client has gone, and its own reader of chunks."""

    def get_environ(self) -> dict[str, Any]:
        if self.req.chunked_read:
            self.req.rfile = ChunkedBody(self.req.conn.rfile)
        environ: dict[str, Any] = super().get_environ()
        connection: socket.socket = self.req.conn.socket
        environ[DISCONNECTED] = lambda: _has_gone(connection)
        return environ

    def respond(self) -> None:
        """Answer in one write: cheroot sends the head on its own, which wakes the client twice."""
        connection = self.req.conn
        file, connection.wfile = connection.wfile, BytesIO()
        try:
            super().respond()
        finally:
            answer, connection.wfile = connection.wfile.getvalue(), file
        if answer:
            file.write(answer)
        body = self.req.rfile
        if isinstance(body, ChunkedBody) and not body.ended:
            self.req.close_connection = True  # what is left would be read as the next request
        if self.req.close_connection and _is_unread(body):
            _discard(connection.socket)


class _Connection(HTTPConnection):
    """A connection whose thread waits a moment for its next request, which an app in a loop sends
    at once, before it hands the connection back to the thread that watches all of them."""

    def communicate(self) -> bool:
        while super().communicate():
            if not self.server.ready:
                return True
            if not self.rfile.has_data() and not _is_readable(self.socket, _LINGER):
                return True
        return False


def _is_unread(body: Any) -> bool:
    return not body.ended if isinstance(body, ChunkedBody) else getattr(body, "remaining", 0) > 0


def _discard(connection: socket.socket) -> None:
    """Take in what a refused client still sends. A connection that is closed over unread bytes is
    reset, and a client that sends all before it reads never sees why."""
    left, end = _MOST_DISCARDED, time.monotonic() + _DISCARD_SECONDS
    with suppress(OSError):
        while left > 0 and _is_readable(connection, min(_DISCARD_WAIT, end - time.monotonic())):
            piece = connection.recv(65_536)
            if not piece:
                return
            left = left - len(piece) if time.monotonic() < end else 0


def _is_readable(connection: socket.socket, seconds: float) -> bool:
    """Whether something, or the end, can be read within ``seconds``. With poll: select takes no
    file descriptor above 1,023, and there may be more connections than that."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(max(0.0, 1e3 * seconds)))


def _has_gone(connection: socket.socket) -> bool:
    """True when the peer has closed: there is something to read, and it is the end."""
    try:
        return _is_readable(connection, 0.0) and connection.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True


class HttpServer:
    """Serves one WSGI application at one or two addresses until it is stopped."""

    def __init__(self, app: Callable[..., Any], threads: int) -> None:
        self._app = app
        self._threads = threads
        self._servers: list[wsgi.Server] = []
        self._runners: list[threading.Thread] = []
        self._socket_file: Path | None = None

    def listen_tcp(self, host: str, port: int) -> str:
        """Bind to ``host`` and ``port`` (0: a free one). Returns the URL, or raises ConfigError."""
        server = self._prepare((host, port))
        if server is None:
            raise ConfigError(f"cannot listen on {host} port {port}: is another daemon there?")
        bound_host, bound_port = server.bind_addr[:2]
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        return f"http://{shown}:{bound_port}"

    def listen_unix(self, path: str) -> str | None:
        """Bind to the Unix socket ``path``. Returns its URL, None when a daemon answers there.

        A socket file that nobody answers on is left from a daemon that is gone, and replaced.
        """
        file = Path(path)
        if file.exists():
            if not stat.S_ISSOCK(file.stat().st_mode):
                raise ConfigError(f"server.socket {path} exists and is no socket")
            if _answers(path):
                return None
            file.unlink()
        if not file.parent.is_dir():
            raise ConfigError(f"server.socket {path}: there is no folder {file.parent}")
        if self._prepare(path) is None:
            raise ConfigError(f"cannot listen on the Unix socket {path}")
        self._socket_file = file
        return f"unix://{path}"

    def _prepare(self, address: Any) -> wsgi.Server | None:
        server = wsgi.Server(
            address,
            self._app,
            numthreads=self._threads,
            request_queue_size=128,
            timeout=_REQUEST_TIMEOUT,
            shutdown_timeout=_SHUTDOWN_TIMEOUT,
        )
        server.gateway = _Gateway
        server.ConnectionClass = _Connection
        server.keep_alive_conn_limit = _KEPT_CONNECTIONS
        server.max_request_header_size = _LARGEST_HEAD
        server.error_log = _log_error
        try:
            server.prepare()
        except OSError as error:
            log.error("%s", error)
            return None
        self._servers.append(server)
        return server

    def start(self) -> None:
        for server in self._servers:
            runner = threading.Thread(target=server.serve, name="delen-http", daemon=True)
            runner.start()
            self._runners.append(runner)

    def stop(self) -> None:
        """Stop listening and wait for the requests under way."""
        for server in self._servers:
            server.stop()
        for runner in self._runners:
            runner.join(_SHUTDOWN_TIMEOUT)
        if self._socket_file is not None:
            self._socket_file.unlink(missing_ok=True)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def _log_error(message: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
    log.log(level, message.rstrip(), exc_info=traceback)
