"""Memory that clients share with the daemon, passed with the first bytes of their connections."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakSet

MOST_MEMORIES = 256
"""Each is an open file. Connections beyond so many send their bodies."""
NO_MEMORY = memoryview(b"")
_FUTURE_WRITE = 0x0010
"""F_SEAL_FUTURE_WRITE of Linux 5.1, which Python's fcntl does not name."""
_SEALS = fcntl.F_SEAL_SHRINK | _FUTURE_WRITE
_BLOCK = 512
_AT_ONCE = 65_536

_memories: WeakSet[mmap.mmap] = WeakSet()
_closer = ThreadPoolExecutor(1, "close")


def receive_first(connection: socket.socket) -> tuple[bytes, memoryview]:
    """The first bytes of a Unix socket's ``connection``, and the memory that came with them."""
    data, files, _, _ = socket.recv_fds(connection, _AT_ONCE, 1, socket.MSG_CMSG_CLOEXEC)
    memory = NO_MEMORY
    for file in files:
        memory = _map(file)
        _closer.submit(os.close, file)  # which may take as long as the client likes
    return data, memory


def _map(file: int) -> memoryview:
    """The memory of ``file``, to be read; none where a client could make that end this process.

    Its seals say that it will not get shorter, and that no page of it will be given back. All of
    its pages are there now. So to read it never raises SIGBUS, and takes no memory of our own.
    """
    try:
        seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
        status = os.fstat(file)
        is_whole = status.st_blocks * _BLOCK >= status.st_size
        if seals & _SEALS != _SEALS or not is_whole or len(_memories) >= MOST_MEMORIES:
            return NO_MEMORY
        memory = mmap.mmap(file, status.st_size, mmap.MAP_SHARED, mmap.PROT_READ)
    except (OSError, ValueError):  # not of memfd_create, or empty
        return NO_MEMORY
    _memories.add(memory)
    return memoryview(memory)
