"""One connection: what stands between its bytes and the server's protocol."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from math import inf
from typing import Any, TypeAlias, cast

from api.server.arrival import ArrivalClock
from api.server.departure import has_gone
from api.server.joined_writes import JoinedWrites
from api.server.memory import NO_MEMORY
from api.server.peer import Socket, user_of
from delen.errors import DelenError, InvalidInput, RequestTimeout, TooLarge
from delen.wire.errors import Error
from delen.wire.message import write

MakeProtocol: TypeAlias = Callable[[dict[str, Any]], asyncio.Protocol]
"""Makes the server's protocol for one connection. The dictionary is the ``state`` of its scopes."""

KEY = "delen.connection"
"""In the ``state`` of a scope: the Connection."""

_END_OF_HEAD = b"\r\n\r\n"
_HTTP_1_0 = re.compile(rb"[^\r]* HTTP/1\.0\r")
_EXPECT = re.compile(rb"(?i)(?<=\n)expect:[^\r]*\r\n")
"""HTTP/1.0 knows no 100 Continue; the protocol would send one."""
_LARGEST_HEAD = 65_536
_MOST_HELD = 262_144
_LOOK_AGAIN = 0.1


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds and bytes a second that a client has: ``head`` for a whole head from its first byte,
    ``idle`` between two requests and while it takes nothing of an answer. Of a body it must have
    sent ``body_rate`` a second on average, after the first ``head`` seconds."""

    head: float = 5.0
    idle: float = 10.0
    body_rate: float = 1000.0


class ConnectionLimit:
    """How many connections are open, at all addresses together, and when their requests came.

    Those beyond ``most`` are refused with a sentence; those beyond ``most`` and ``surplus`` are
    closed. Once two thirds of ``most`` are open, each is closed after its answer, so that idle ones
    lock nobody out.
    """

    def __init__(self, most: int, surplus: int) -> None:
        self._most = most
        self._surplus = surplus
        self._open = 0
        self.clock = ArrivalClock()

    @property
    def is_crowded(self) -> bool:
        return 3 * self._open > 2 * self._most

    def enter(self) -> bool:
        """One more; true if it is beyond ``most``."""
        self._open += 1
        return self._open > self._most

    def leave(self) -> None:
        self._open -= 1

    @property
    def is_over(self) -> bool:
        """Whether there is no room even for a refusal."""
        return self._open > self._most + self._surplus


class Connection(asyncio.Protocol):
    """Passes on one request at a time: a head once it is whole, of the body what is asked for, and
    nothing of the next request before ``request_ended``. So a client holds no more than its bytes,
    and only for as long as ``patience`` lets it.

    ``arrived`` is when the present request began to come (``time.monotonic``), ``receiving`` the
    seconds until the last of it that was passed on. ``is_surplus`` is true beyond the connections
    that are served, ``is_gone`` once the connection is closed. ``on_gone`` is called once when the
    client leaves before its answer, ``on_end`` when it sends no more. ``memory`` is what the client
    shares; it came with the ``first`` bytes, which were read before the connection was made.
    ``refused`` is the target of the last request that was refused for now, and until when.
    """

    def __init__(
        self,
        make: MakeProtocol,
        limit: ConnectionLimit,
        patience: Patience,
        first: bytes = b"",
        memory: memoryview = NO_MEMORY,
    ) -> None:
        self.patience = patience
        self.memory = memory
        self.arrived = 0.0
        self.receiving: float | None = None
        self.refused = ("", 0.0)
        self.is_surplus = False
        self.sends_no_more = self.is_gone = False
        self.on_gone: Callable[[], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._protocol = make({KEY: self})
        self._first = first
        self._held = bytearray()
        self._wanted: float = 0.0
        self._awaits_head = True
        self._idle_since = self._loop.time()
        self._unsent = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def held(self) -> int:
        """Bytes that have come and were not passed on."""
        return len(self._held)

    @cached_property
    def socket(self) -> Socket:
        """The connection's socket, for questions about its other end."""
        return cast(Socket, self._transport.get_extra_info("socket"))

    @cached_property
    def user(self) -> int | None:
        """The user of this machine at the other end; None where the kernel does not know one."""
        return user_of(self.socket)

    @property
    def is_crowded(self) -> bool:
        """Whether the connection is to be closed after its answer, for others to find room."""
        return self._limit.is_crowded

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._writes = JoinedWrites(self._transport, self._loop.call_soon)
        self._protocol.connection_made(self._writes)
        self.is_surplus = self._limit.enter()
        if self._limit.is_over:
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(self.patience.idle, self._look_at_time)
            if self._first:
                self.data_received(self._first)

    def data_received(self, data: bytes) -> None:
        if not self._held and self._awaits_head:
            self.arrived = self._limit.clock.arrival(self.socket)
        elif not self._held and len(data) <= self._wanted:
            self._wanted -= len(data)
            self._parse(data)
            return
        self._held += data
        if self._awaits_head:
            self._pass_head()
        elif self._wanted:
            self._pass_body()
        if len(self._held) > _MOST_HELD:
            self._transport.pause_reading()

    def pass_body(self, size: float = inf) -> None:
        """Pass on the next ``size`` bytes of the body, as they come."""
        is_full = len(self._held) > _MOST_HELD
        self._wanted = size
        if self._held:
            self._pass_body()
        if is_full and len(self._held) <= _MOST_HELD:
            self._transport.resume_reading()

    def body_ended(self) -> None:
        """All of the body was read. The protocol pauses reading where much of it comes at once, and
        goes on once it is asked for more: then nobody would see that the client leaves."""
        if len(self._held) <= _MOST_HELD:
            self._transport.resume_reading()

    def request_ended(self) -> None:
        """The answer is written. What has come of the next request is passed on."""
        self.on_gone = self.on_end = None
        if self._transport.is_closing():
            return
        self._wanted = 0.0
        self._awaits_head = True
        self._writes.has_answered = False
        self._idle_since = self._loop.time()
        if self._held:
            self.arrived = time.monotonic()
            self._pass_head()
        if self.sends_no_more and self._awaits_head:
            self._transport.close()

    def close(self) -> None:
        """Close the connection once what was written is sent."""
        self._transport.close()

    def eof_received(self) -> bool:
        """The client sends no more, and may still wait for its answer; not with TLS, where that
        closes the connection."""
        self.sends_no_more = True
        if self._awaits_head or self._transport.get_extra_info("ssl_object") is not None:
            return False
        if self.on_end is not None:
            self.on_end()
        self._look_for_client()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True
        self.memory = NO_MEMORY
        self._limit.leave()
        if self._timer is not None:
            self._timer.cancel()
        self._protocol.connection_lost(exc)
        if self.on_gone is not None:
            self.on_gone()
        self.on_gone = self.on_end = None

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def _pass_head(self) -> None:
        # the parser skips empty lines, with which some clients end their bodies
        del self._held[: len(self._held) - len(self._held.lstrip(b"\r\n"))]
        end = self._held.find(_END_OF_HEAD)
        if max(end, len(self._held) if end < 0 else 0) > _LARGEST_HEAD:
            self._refuse(TooLarge(f"the head is larger than {_LARGEST_HEAD} bytes"))
        elif end >= 0:
            self._awaits_head = False
            head = bytes(self._held[: end + len(_END_OF_HEAD)])
            del self._held[: len(head)]
            if _HTTP_1_0.match(head):
                head = _EXPECT.sub(b"", head)
            self._parse(head)
        elif self._timer is not None:
            self._timer.cancel()
            left = self.arrived + self.patience.head - time.monotonic()
            self._timer = self._loop.call_later(left, self._look_at_time)

    def _pass_body(self) -> None:
        whole = len(self._held) <= self._wanted
        piece = bytes(self._held if whole else self._held[: int(self._wanted)])
        del self._held[: len(piece)]
        self._wanted -= len(piece)
        self._parse(piece)

    def _parse(self, data: bytes) -> None:
        """Have the protocol parse ``data``. Answers are written by tasks, so what it writes at once
        is its refusal, which is said as all others are."""
        self.receiving = time.monotonic() - self.arrived
        self._writes.is_muted = True
        try:
            self._protocol.data_received(data)
        finally:
            self._writes.is_muted = False
        if not self._writes.was_refused:
            return
        if self._writes.has_answered:
            self._transport.close()
        else:
            self._refuse(InvalidInput("the request is not framed as RFC 9112 has it"))

    def _look_at_time(self) -> None:
        unsent = self._transport.get_write_buffer_size()
        left = self.patience.idle
        if self._transport.is_closing() or (unsent and unsent >= self._unsent > 0):
            self._transport.abort()
            return
        if self._awaits_head and self._held:
            self._refuse(
                RequestTimeout(f"the head did not come within {self.patience.head:g} seconds")
            )
        elif self._awaits_head and not unsent:
            left += self._idle_since - self._loop.time()
            if left <= 0:
                self._transport.close()
        self._unsent = unsent
        self._timer = self._loop.call_later(max(left, _LOOK_AGAIN), self._look_at_time)

    def _look_for_client(self) -> None:
        if self._transport.is_closing():
            return
        if has_gone(self._transport.get_extra_info("socket")):
            self._transport.abort()
        else:  # its close may be half done
            self._loop.call_later(_LOOK_AGAIN, self._look_for_client)

    def _refuse(self, error: DelenError) -> None:
        body = write(Error.of(error))
        self._transport.write(
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Connection: close\r\n\r\n".encode()
            + body
        )
        self._awaits_head = False
        self._transport.close()
