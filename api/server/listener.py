"""Accepts connections, and waits where the system has none left to give."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

from api.server.memory import NO_MEMORY, receive_first
from api.server.tls import Tls

log = logging.getLogger("delen.http")

_AT_ONCE = 64
_TRY_AGAIN = 0.25
_MOST_WAITING = 256
_FIRST_SECONDS = 1.0
MOST_HANDSHAKES = 512
"""Connections of one listener that may be under way to be encrypted."""

MakeConnection: TypeAlias = Callable[[bytes, memoryview], asyncio.Protocol]
"""Makes the protocol of a connection with its first bytes, and the memory that came with them."""


class Listener:
    """Gives each connection to ``listening`` a protocol of ``make``. While no more files can be
    open, clients wait in the kernel; that is logged once, until all that waited are accepted.

    Only the first bytes of a Unix socket may bring memory. It is waited for them for a second, and
    not at all while too many others wait. At TCP clients have ``seconds`` to agree on ``tls``;
    until then they are not among those that are served, and have no protocol.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        make: MakeConnection,
        tls: Tls | None = None,
        seconds: float = _FIRST_SECONDS,
    ) -> None:
        self._loop = loop
        self._socket = listening
        self._make = make
        self._tls = None if listening.family == socket.AF_UNIX else tls
        self._limits = {"ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": seconds}
        self._opening: set[asyncio.Task[object]] = set()
        self._waiting = 0
        self._is_exhausted = False
        self._resuming: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        loop.add_reader(listening, self._accept)

    def close(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for opening in self._opening:
            opening.cancel()

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
            if self._tls is not None and len(self._opening) >= MOST_HANDSHAKES:
                accepted.close()
                continue
            accepted.setblocking(False)
            if accepted.family != socket.AF_UNIX:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opening = self._loop.create_task(self._open(accepted))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, accepted: socket.socket) -> None:
        try:
            first, memory = b"", NO_MEMORY
            if accepted.family == socket.AF_UNIX:
                first, memory = await self._receive_first(accepted)
            make = partial(self._make, first, memory)
            tls: dict[str, Any] = {}
            if self._tls is not None:
                tls = {"ssl": self._tls.identity.context, **self._limits}
            else:  # there is a protocol at once, and it may read before this task goes on
                self._forget_opening()
            await self._loop.connect_accepted_socket(make, accepted, **tls)
        except asyncio.CancelledError:
            accepted.close()
            raise
        except OSError as error:
            accepted.close()
            log.info("a client broke off: %r", error)

    def _forget_opening(self) -> None:
        """``close`` leaves the calling task alone from now on."""
        if (opening := asyncio.current_task()) is not None:
            self._opening.discard(opening)

    async def _receive_first(self, accepted: socket.socket) -> tuple[bytes, memoryview]:
        """As ``receive_first``; nothing where the client sends nothing for long."""
        with suppress(BlockingIOError):
            return receive_first(accepted)
        if self._waiting < _MOST_WAITING:
            self._waiting += 1
            try:
                await asyncio.wait_for(self._is_readable(accepted), _FIRST_SECONDS)
                return receive_first(accepted)
            except (asyncio.TimeoutError, BlockingIOError):
                pass
            finally:
                self._waiting -= 1
        return b"", NO_MEMORY

    async def _is_readable(self, accepted: socket.socket) -> None:
        readable = asyncio.Event()
        self._loop.add_reader(accepted, readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(accepted)

    def _pause(self, error: OSError) -> None:
        if not self._is_exhausted:
            self._is_exhausted = True
            log.error("no connection can be accepted (%s): clients wait until one can", error)
        self._loop.remove_reader(self._socket)
        self._resuming = self._loop.call_later(_TRY_AGAIN, self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._socket, self._accept)
