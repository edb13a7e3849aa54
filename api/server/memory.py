"""Memory that a client shares with the daemon, passed with the first bytes of its connection."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket

_FUTURE_WRITE = 0x0010
"""F_SEAL_FUTURE_WRITE of Linux 5.1, which Python's fcntl does not name."""
_SEALS = fcntl.F_SEAL_SHRINK | _FUTURE_WRITE
_BLOCK = 512
_AT_ONCE = 65_536
NO_MEMORY = memoryview(b"")


def receive_first(connection: socket.socket) -> tuple[bytes, memoryview]:
    """The first bytes of a Unix socket's ``connection``, and the memory that came with them."""
    data, files, _, _ = socket.recv_fds(connection, _AT_ONCE, 1, socket.MSG_CMSG_CLOEXEC)
    memory = NO_MEMORY
    for file in files:
        try:
            memory = _map(file)
        finally:
            os.close(file)
    return data, memory


def _map(file: int) -> memoryview:
    """The memory of ``file``, to be read; none where a client could make that end this process.

    Its seals say that it will not get shorter, and that no page of it will be given back. All of
    its pages are there now. So to read it never raises SIGBUS, and takes no memory of our own.
    """
    try:
        seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
        status = os.fstat(file)
        if seals & _SEALS != _SEALS or status.st_blocks * _BLOCK < status.st_size:
            return NO_MEMORY
        return memoryview(mmap.mmap(file, status.st_size, mmap.MAP_SHARED, mmap.PROT_READ))
    except (OSError, ValueError):  # no memory of memfd_create, or of no size
        return NO_MEMORY
