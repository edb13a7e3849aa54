"""The HTTP server: uvicorn's, on TCP and on a Unix socket, with one event loop for both."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.server.asgi import App
from api.server.connection import Connection, ConnectionLimit, Patience
from api.server.listener import MOST_HANDSHAKES, Listener
from api.server.loop_watch import LoopWatch
from api.server.memory import MOST_MEMORIES
from api.server.passed import url_of
from api.server.socket_file import SocketFile
from api.server.tls import Tls
from delen.errors import ConfigError

log = logging.getLogger("delen.http")

_SHUTDOWN_TIMEOUT = 2
_NOT_YET_ACCEPTED = 1024
"""Connections that may wait in the kernel. Where they are too many, TCP tries again after a second,
and a Unix socket refuses."""
_SURPLUS = 256
"""So many connections beyond ``server.connections`` are told that they are too many."""
_OTHER_FILES = 256 + MOST_MEMORIES
"""So many files may be open beside connections."""
_KEEP = 86_400
"""Seconds for which uvicorn keeps idle connections; a Connection is less patient."""


class HttpServer:
    """Serves one ASGI application at its addresses until it is stopped, with ``connections`` at all
    of them, and with ``tls`` at those of TCP. ConfigError if this process may not have so many
    open."""

    def __init__(
        self, app: App, connections: int, patience: Patience, tls: Tls | None = None
    ) -> None:
        handshakes = 0 if tls is None else MOST_HANDSHAKES
        _allow_files(connections + handshakes + _SURPLUS + _OTHER_FILES)
        self._tls = tls
        self._limit = ConnectionLimit(connections, _SURPLUS)
        self._patience = patience
        self._config = uvicorn.Config(
            app,
            interface="asgi3",
            http=HttpToolsProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP,
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT,
        )
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # it logs what clients do wrong
        self._server = uvicorn.Server(self._config)
        self._loop = uvloop.new_event_loop()
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, name="delen-http", daemon=True)
        self._socket_file: Path | None = None
        self.seconds_behind = LoopWatch(self._loop).seconds_behind

    def listen_tcp(self, host: str, port: int) -> str:
        """Bind to ``host`` and ``port`` (0: a free one). Returns the URL, or raises ConfigError."""
        try:
            info = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
            family, _, _, _, address = info[0]
            listening = socket.socket(family)
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(address)
                listening.listen(_NOT_YET_ACCEPTED)
            except OSError:
                listening.close()
                raise
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host} port {port}: {error.strerror or error}; is another "
                "daemon there?"
            ) from error
        return self.listen_on(listening)

    def listen_unix(self, file: SocketFile) -> str | None:
        """Listen at the Unix socket ``file``. Returns its URL, None when a daemon answers there."""
        bound = file.bind()
        if bound is None:
            return None
        bound.listen(_NOT_YET_ACCEPTED)
        self._sockets.append(bound)
        self._socket_file = Path(file.path)
        return f"unix://{file.path}"

    def listen_on(self, passed: socket.socket) -> str:
        """Accept connections at ``passed``, which listens already. Returns its URL."""
        self._sockets.append(passed)
        return url_of(passed, self._tls is not None)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and wait for the requests under way."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop_soon)
            self._thread.join()
        if self._socket_file is not None:
            self._socket_file.unlink(missing_ok=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._config.load()
        make = partial(Connection, self._make_protocol, self._limit, self._patience)
        head = self._patience.head
        self._listeners = [
            Listener(self._loop, each, make, self._tls, head) for each in self._sockets
        ]
        await self._server.serve(sockets=[])

    def _make_protocol(self, state: dict[str, Any]) -> asyncio.Protocol:
        return HttpToolsProtocol(self._config, self._server.server_state, state, self._loop)

    def _stop_soon(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._server.should_exit = True


def _allow_files(count: int) -> None:
    """ConfigError unless this process may have ``count`` files open, after what can be done."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise ConfigError(
            f"server.connections needs {count} open files, but this process may have {hard}: set "
            f"it to at most {max(0, hard - _SURPLUS - _OTHER_FILES)}, or raise the limit"
        )
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
