"""Whether a client that sends no more has gone, or still waits for its answer."""

from __future__ import annotations

import select
import socket
import struct
from typing import Protocol

_SOCK_DIAG_BY_FAMILY = 20
_NETLINK_SOCK_DIAG = 4


class Socket(Protocol):
    """What is asked of a connection's socket."""

    family: int

    def fileno(self) -> int: ...
    def getpeername(self) -> tuple[str, int]: ...
    def getsockname(self) -> tuple[str, int]: ...


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
