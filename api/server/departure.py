"""Whether a client that sends no more has gone, or still waits for its answer."""

from __future__ import annotations

import select
import socket

from api.server.peer import Socket, find_client


def has_gone(connection: Socket) -> bool:
    """True when the peer has closed, as far as that can be known.

    A client that shuts down only its sending side still waits for its answer. A Unix socket tells
    that from a close. Over TCP both look alike until something is sent: a client on this machine is
    then looked up with the kernel, a remote one is taken to wait.
    """
    try:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLRDHUP)
        found = sum(events for _, events in poll.poll(0))
        return bool(found & ~select.POLLRDHUP) or (bool(found) and not _is_held(connection))
    except (OSError, ValueError):
        return True


def _is_held(connection: Socket) -> bool:
    """Whether a process holds the other end of ``connection``: false only if this machine has that
    end and none does."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    peer, own = connection.getpeername()[:2], connection.getsockname()[:2]
    client = find_client(connection.family, peer, own)
    return client is None or bool(client.inode)
