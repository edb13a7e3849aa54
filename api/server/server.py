"""The HTTP server: cheroot's, on TCP and on a Unix socket, with one pool of threads each."""

from __future__ import annotations

import logging
import resource
import socket
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cheroot import wsgi

from api.server.connection import Connection, ConnectionLimit, Gateway
from api.server.disconnects import DisconnectWatcher
from api.server.pool import Pool
from delen.errors import ConfigError

log = logging.getLogger("delen.http")

_REQUEST_TIMEOUT = 10.0
_SHUTDOWN_TIMEOUT = 2.0
_CALL_AGAIN = 0.05
_LARGEST_HEAD = 65_536
_NOT_YET_ACCEPTED = 1024
"""Connections that may wait in the kernel. Where they are too many, TCP tries again after a second,
and a Unix socket refuses."""
_SURPLUS = 256
"""So many connections beyond ``server.connections`` are told that they are too many."""
_OTHER_FILES = 256
"""So many files may be open beside connections."""


class HttpServer:
    """Serves one WSGI application at one or two addresses until it is stopped.

    ``threads`` read requests and write answers at each address, ``connections`` are served at all
    of them. ConfigError if this process may not have so many open.
    """

    def __init__(self, app: Callable[..., Any], threads: int, connections: int) -> None:
        _allow_files(connections + _SURPLUS + _OTHER_FILES)
        self._app = app
        self._threads = threads
        self._kept = max(1, connections // 3)  # two addresses leave room for those that work
        self._make_connection = partial(
            Connection, ConnectionLimit(connections, _SURPLUS), DisconnectWatcher()
        )
        self._servers: list[wsgi.Server] = []
        self._addresses: list[tuple[socket.AddressFamily, Any]] = []
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
                raise ConfigError(f"server.socket {path} exists and is not a socket")
            if _answers(socket.AF_UNIX, path):
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
            request_queue_size=_NOT_YET_ACCEPTED,
            timeout=_REQUEST_TIMEOUT,
            shutdown_timeout=_SHUTDOWN_TIMEOUT,
        )
        server.requests = Pool(self._threads)
        server.gateway = Gateway
        server.ConnectionClass = self._make_connection
        server.keep_alive_conn_limit = self._kept
        server.max_request_header_size = _LARGEST_HEAD
        server.error_log = _log_error
        try:
            server.prepare()
        except OSError as error:
            log.error("%s", error)
            return None
        self._servers.append(server)
        self._addresses.append((server.socket.family, server.socket.getsockname()))
        return server

    def start(self) -> None:
        for server in self._servers:
            runner = threading.Thread(target=server.serve, name="delen-http", daemon=True)
            runner.start()
            self._runners.append(runner)

    def stop(self) -> None:
        """Stop listening and wait for the requests under way."""
        stopping = [threading.Thread(target=server.stop) for server in self._servers]
        for thread in stopping:
            thread.start()
        for address, thread in zip(self._addresses, stopping, strict=True):
            while thread.is_alive():
                _answers(*address)  # a server that waits for clients looks up when one comes
                thread.join(_CALL_AGAIN)
        for runner in self._runners:
            runner.join(_SHUTDOWN_TIMEOUT)
        if self._socket_file is not None:
            self._socket_file.unlink(missing_ok=True)


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


def _answers(family: socket.AddressFamily, address: Any) -> bool:
    with socket.socket(family) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address)
        except OSError:
            return False
        return True


def _log_error(message: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
    log.log(level, message.rstrip(), exc_info=traceback)
