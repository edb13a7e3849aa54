"""Notices clients that leave."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable


class DisconnectWatcher:
    """One thread watches all connections, each from its beginning to its end."""

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
        del self._watched[connection.fileno()]

    def _watch(self) -> None:
        while True:
            for number, _ in self._epoll.poll():
                watched = self._watched.get(number)
                if watched is not None and has_gone(watched[0]):  # else the number is another's now
                    watched[1]()


def is_readable(connection: socket.socket, seconds: float) -> bool:
    """Whether something, or the end, can be read within ``seconds``. With poll: select takes no
    file descriptor above 1,023, and there may be more connections than that."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(max(0.0, 1e3 * seconds)))


def has_gone(connection: socket.socket) -> bool:
    """True when the peer has closed."""
    poll = select.poll()
    try:
        poll.register(connection, select.POLLRDHUP)
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return True
