"""Whose process is at the other end of a connection, as the kernel says (unix(7), sock_diag(7))."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import NamedTuple, Protocol

_SOCK_DIAG_BY_FAMILY = 20
_NETLINK_SOCK_DIAG = 4
_CREDENTIALS = struct.Struct("=3i")


class Socket(Protocol):
    """What is asked of a connection's socket."""

    family: int

    def fileno(self) -> int: ...
    def getpeername(self) -> tuple[str, int]: ...
    def getsockname(self) -> tuple[str, int]: ...
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


class Client(NamedTuple):
    """The user of a socket on this machine, and its inode; 0 where no process holds it."""

    user: int
    inode: int


def find_client(family: int, client: tuple[str, int], own: tuple[str, int]) -> Client | None:
    """The TCP socket of this machine at ``client`` that is connected to ``own``. None if there is
    none, or if the kernel does not say."""
    addresses = (
        socket.inet_pton(family, address).ljust(16, b"\0") for address in (client[0], own[0])
    )
    body = struct.pack("=BBxxI", family, socket.IPPROTO_TCP, 0xFFFF_FFFF)
    body += struct.pack("!HH", client[1], own[1]) + b"".join(addresses)
    body += struct.pack("=III", 0, 0xFFFF_FFFF, 0xFFFF_FFFF)  # any interface, no cookie
    head = struct.pack("=IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, 1, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(1.0)
            kernel.sendto(head + body, (0, 0))
            answer = kernel.recv(4096)
    except OSError:
        return None
    (kind,) = struct.unpack_from("=H", answer, 4)
    if kind != _SOCK_DIAG_BY_FAMILY:
        return None
    return Client(*struct.unpack_from("=II", answer, 80))


def local_user(client: tuple[str, int], own_port: int) -> int | None:
    """The user of a TCP ``client`` on loopback that is connected to ``own_port``; None of another
    one, and if that is not known."""
    host = ip_address(client[0])
    if not host.is_loopback:
        return None
    family = socket.AF_INET if host.version == 4 else socket.AF_INET6
    found = find_client(family, client, (client[0], own_port))
    return found.user if found is not None and found.inode else None


def user_of(connection: Socket) -> int | None:
    """The user at the other end of ``connection``; None if that is not known."""
    try:
        if connection.family == socket.AF_UNIX:
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return int(_CREDENTIALS.unpack(raw)[1])
        peer, own = connection.getpeername()[:2], connection.getsockname()[:2]
        client = find_client(connection.family, peer, own)
    except (OSError, ValueError):
        return None
    return client.user if client is not None and client.inode else None
