"""Listening sockets that systemd passes to the daemon it starts (sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from delen.errors import ConfigError

_FIRST = 3


def take_passed(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that were passed to this process, which no child of it inherits. ConfigError
    where one is not a listening stream socket of TCP or Unix."""
    process, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()):
        return []
    if not (count.isascii() and count.isdecimal()):
        raise ConfigError(f"LISTEN_FDS is {count!r}; it must be the number of sockets passed")
    return [_take(descriptor) for descriptor in range(_FIRST, _FIRST + int(count))]


def _take(descriptor: int) -> socket.socket:
    try:
        passed = socket.socket(fileno=descriptor)
        is_listening = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(
            f"LISTEN_FDS: descriptor {descriptor} is not a socket: {error}"
        ) from error
    is_known = passed.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if not (is_listening and is_known and passed.type == socket.SOCK_STREAM):
        raise ConfigError(
            f"LISTEN_FDS: descriptor {descriptor} is not a listening stream socket of TCP or Unix; "
            "use ListenStream in the socket unit, and Accept=no"
        )
    os.set_inheritable(descriptor, False)
    return passed


def url_of(listening: socket.socket, is_encrypted: bool = False) -> str:
    """Where clients find ``listening``, which is a Unix socket or may be encrypted."""
    if listening.family == socket.AF_UNIX:
        return f"unix://{os.fsdecode(listening.getsockname())}"
    host, port = listening.getsockname()[:2]
    scheme = "https" if is_encrypted else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
