"""When a request came, though nobody read it: the kernel keeps its bytes while the process is
stopped or gets no processor."""

from __future__ import annotations

import socket
import struct
import time

from api.server.peer import Socket

LULL = 0.1
"""Seconds for which nothing was read, from which on the kernel is asked. Its clock ticks every few
milliseconds, and late on a virtual machine that gets no processor."""

_CATCHING_UP = 1.0
"""Seconds after a lull in which others of its requests may still be read."""

_TCP_INFO_SIZE = 56
_LAST_DATA_RECEIVED = struct.Struct("=I")
_AT = 52
"""Milliseconds since the last bytes came (tcp_info, tcpi_last_data_recv)."""


class ArrivalClock:
    """Asks the kernel, which costs a system call, only where requests may have waited there: while
    one follows the other, none waits longer than ``LULL``."""

    def __init__(self) -> None:
        self._read_at = self._lull_began = self._caught_up = time.monotonic()

    def arrival(self, connection: Socket) -> float:
        """When what is read of ``connection`` now came (``time.monotonic``). Of a Unix socket the
        kernel does not say, so it is now."""
        now = time.monotonic()
        if now - self._read_at > LULL:
            self._lull_began, self._caught_up = self._read_at, now + _CATCHING_UP
        self._read_at = now
        if now > self._caught_up:
            return now
        return max(self._lull_began, now - kernel_wait(connection))  # it read what came before


def kernel_wait(connection: Socket) -> float:
    """Seconds for which bytes of a TCP ``connection`` have waited to be read; 0 below ``LULL``, and
    where it is not known."""
    if connection.family == socket.AF_UNIX:
        return 0.0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        waited = _LAST_DATA_RECEIVED.unpack_from(info, _AT)[0] / 1e3
    except (OSError, struct.error):
        return 0.0
    return waited if waited >= LULL else 0.0
