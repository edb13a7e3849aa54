"""Accepts connections, and waits where the system has none left to give."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

log = logging.getLogger("delen.http")

_AT_ONCE = 64
_TRY_AGAIN = 0.25


class Listener:
    """Gives each connection to ``listening`` a protocol of ``make``. While no more files can be
    open, clients wait in the kernel; that is logged once, until all that waited are accepted."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        make: Callable[[], asyncio.Protocol],
    ) -> None:
        self._loop = loop
        self._socket = listening
        self._make = make
        self._opening: set[asyncio.Task[object]] = set()
        self._is_exhausted = False
        self._resuming: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        loop.add_reader(listening, self._accept)

    def close(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                self._is_exhausted = False
                return
            except ConnectionError:
                continue  # that client has gone already
            except OSError as error:
                self._pause(error)
                return
            accepted.setblocking(False)
            if accepted.family != socket.AF_UNIX:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opening = self._loop.create_task(self._open(accepted))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, accepted)
        except OSError as error:
            accepted.close()
            log.info("a client broke off: %r", error)

    def _pause(self, error: OSError) -> None:
        if not self._is_exhausted:
            self._is_exhausted = True
            log.error("no connection can be accepted (%s): clients wait until one can", error)
        self._loop.remove_reader(self._socket)
        self._resuming = self._loop.call_later(_TRY_AGAIN, self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._socket, self._accept)
