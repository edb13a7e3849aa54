"""Memory that a client shares with the daemon at the other end of a Unix socket."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import time
import weakref
from collections.abc import Sequence
from math import inf

from delen.wire.answers import SharedMemory as SharedMemoryMessage
from delen.wire.message import read_answer

LEAST = 32_768
"""Bytes of a body from which it goes through memory."""
ADDRESS = "/v1/memory"
_FUTURE_WRITE = 0x0010
"""F_SEAL_FUTURE_WRITE of Linux 5.1, which Python's fcntl does not name."""
_STEP = 1 << 20
_ASK_AGAIN = 60.0


class SharedMemory:
    """Room for at least ``size`` bytes, that this process writes and the daemon reads.

    It has no name, so nothing is left of it when both have let go. Its seals are the daemon's
    safety: it never gets shorter, and no page of it is given back. OSError where the system does
    not have such memory, or has none left.
    """

    def __init__(self, size: int) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no memory without a name")
        self.size = -(-size // _STEP) * _STEP
        self._file = os.memfd_create("delen", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._close = weakref.finalize(self, os.close, self._file)
        os.posix_fallocate(self._file, 0, self.size)
        self._map = mmap.mmap(self._file, self.size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _FUTURE_WRITE
        fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, seals)

    def pass_to(self, connection: socket.socket, first: bytes) -> None:
        """Send the ``first`` bytes of a new Unix ``connection``, and this memory with them."""
        socket.send_fds(connection, [first], [self._file])
        self._close()

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Write ``pieces`` one after the other, from the beginning."""
        begin = 0
        for piece in pieces:
            self._map[begin : begin + len(piece)] = piece
            begin += len(piece)


class Sharing:
    """Whether a daemon takes memory. It is asked by the first connection that brings some, and
    where it does not, by none for a minute. A connection that breaks says nothing."""

    def __init__(self) -> None:
        self.works: bool | None = None
        self._asked = -inf

    @property
    def is_worth_trying(self) -> bool:
        return self.works is not False or time.monotonic() - self._asked > _ASK_AGAIN

    def found(self, works: bool) -> bool:
        """Note what an attempt came to, which is returned."""
        self.works, self._asked = works, time.monotonic()
        return works

    def read(self, status: int, body: bytes, memory: SharedMemory) -> bool:
        """Note what the daemon has answered at ``ADDRESS``: whether it has all of ``memory``."""
        try:
            has = status == 200 and read_answer(SharedMemoryMessage, body).bytes >= memory.size
        except ValueError:
            has = False
        return self.found(has)
