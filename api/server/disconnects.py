"""Notices clients that leave."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Callable

_LOOK_AGAIN = 0.1
_SOCK_DIAG_BY_FAMILY = 20
_NETLINK_SOCK_DIAG = 4


class DisconnectWatcher:
    """One thread watches all connections, each from its beginning to its end.

    A client that shuts down only its sending side still waits for its answer. A Unix socket tells
    that from a close. Over TCP both look alike until something is sent: a client on this machine is
    then looked up with the kernel, a remote one is taken to wait.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[socket.socket, Callable[[], None]]] = {}
        threading.Thread(target=self._watch, name="delen-disconnects", daemon=True).start()

    def watch(self, connection: socket.socket, tell: Callable[[], None]) -> None:
        """Call ``tell`` when the client of ``connection`` closes it, unless it is let go before."""
        self._watched[connection.fileno()] = connection, tell
        self._epoll.register(connection, select.EPOLLRDHUP | select.EPOLLET)

    def let_go(self, connection: socket.socket) -> None:
        """Watch ``connection`` no more, which is about to be closed."""
        self._epoll.unregister(connection)
        self._watched.pop(connection.fileno(), None)

    def _watch(self) -> None:
        half_closed: set[int] = set()
        while True:
            events = self._epoll.poll(_LOOK_AGAIN if half_closed else None)
            numbers, half_closed = half_closed.union(number for number, _ in events), set()
            for number in numbers:
                watched = self._watched.get(number)
                if watched is None:
                    continue  # the number may be another's now
                if has_gone(watched[0]):
                    self._watched.pop(number, None)  # more than one event may say so
                    watched[1]()
                elif _has_shut_down(watched[0]):
                    half_closed.add(number)  # its close may be half done


def is_readable(connection: socket.socket, seconds: float) -> bool:
    """Whether something, or the end, can be read within ``seconds``. With poll: select takes no
    file descriptor above 1,023, and there may be more connections than that."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(max(0.0, 1e3 * seconds)))


def has_gone(connection: socket.socket) -> bool:
    """True when the peer has closed, as far as that can be known."""
    try:
        found = _poll(connection, select.POLLRDHUP)
        return bool(found & ~select.POLLRDHUP) or (bool(found) and not _is_held(connection))
    except (OSError, ValueError):
        return True


def _has_shut_down(connection: socket.socket) -> bool:
    """True when the peer sends no more; false, too, where ``connection`` was closed meanwhile."""
    try:
        return bool(_poll(connection, select.POLLRDHUP))
    except ValueError:
        return False


def _poll(connection: socket.socket, events: int) -> int:
    """Which of ``events``, of errors and of the end in both directions are there."""
    poll = select.poll()
    poll.register(connection, events)
    return sum(found for _, found in poll.poll(0))


def _is_held(connection: socket.socket) -> bool:
    """Whether a process holds the other end of ``connection``: false only if this machine has that
    end and none does (sock_diag(7))."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    (host, port), (own_host, own_port) = connection.getpeername()[:2], connection.getsockname()[:2]
    addresses = (
        socket.inet_pton(connection.family, address).ljust(16, b"\0")
        for address in (host, own_host)
    )
    body = struct.pack("=BBxxI", connection.family, socket.IPPROTO_TCP, 0xFFFF_FFFF)
    body += struct.pack("!HH", port, own_port) + b"".join(addresses)
    body += struct.pack("=III", 0, 0xFFFF_FFFF, 0xFFFF_FFFF)  # any interface, no cookie
    head = struct.pack("=IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, 1, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(1.0)
            kernel.sendto(head + body, (0, 0))
            answer = kernel.recv(4096)
    except OSError:
        return True
    (kind,) = struct.unpack_from("=H", answer, 4)
    if kind != _SOCK_DIAG_BY_FAMILY:
        return True
    (inode,) = struct.unpack_from("=I", answer, 84)
    return bool(inode)
