"""The body of one request: read as far as it is wanted, for as long as its client is patient."""

from __future__ import annotations

import asyncio
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from api.server.asgi import Receive
from api.server.connection import Connection
from delen.errors import (
    DelenError,
    InvalidInput,
    Overloaded,
    RequestTimeout,
    TooLarge,
    UnsupportedMediaType,
)

_SLICE = 16_384
"""Bytes of a chunked body that are passed on at once: what follows it may be the next request."""
SMALL = 65_536
"""Bytes up to which a body takes no room that is worth counting."""
_MOST_DISCARDED = 1 << 25
_DISCARD_SECONDS = 2.0
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_IN_MEMORY = "Delen-Shared-Memory"
_SHARED = _IN_MEMORY.lower().encode()
_PLACE = re.compile(rb"(\d{1,15})\+(\d{1,15})")
CODINGS = (b"gzip", b"deflate")

_LOOK_AGAIN = 0.1
"""Seconds."""


class UnsupportedCoding(UnsupportedMediaType):
    """A Content-Encoding that is not read."""


class ClientGone(Exception):
    """The client left before its request was there."""


class BodyMemory:
    """Bytes of all bodies that are held at once, at most ``most``, over HTTP and gRPC together.
    Small bodies do not count: connections are bounded, and a client with a small one is not to wait
    for others."""

    def __init__(self, most: float) -> None:
        self._lock = threading.Lock()
        self._left = most

    def take(self, size: int, held: int = 0) -> int:
        """Make ``size`` bytes of the ``held`` ones of a body; how many are held now. Overloaded
        where they are too many."""
        if size <= SMALL:
            return held
        with self._lock:
            if size - held > self._left:
                raise Overloaded(
                    "the bodies of other requests take all of server.max_bodies_mb",
                    retry_after=1.0,
                )
            self._left -= size - held
        return size

    def give_back(self, size: int) -> None:
        with self._lock:
            self._left += size

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Hold a body of ``size`` bytes meanwhile. Overloaded as ``take``."""
        held = self.take(size)
        try:
            yield
        finally:
            self.give_back(held)


class RequestBody:
    """Reads the body of a request with these ``headers`` through ``receive``.

    ``length`` is what was announced, None for one in chunks. ``has_ended`` is true once all of it
    was read. What is read counts in ``memory`` until ``release``. ``shared`` is the body where it
    lies in memory that the client shares, and may change at any time.
    """

    def __init__(
        self,
        connection: Connection,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        memory: BodyMemory,
    ) -> None:
        self._connection = connection
        self._memory = memory
        self._held = 0
        self._receive = receive
        coding = headers.get(b"transfer-encoding")
        self.length = int(headers.get(b"content-length", 0)) if coding is None else None
        self.has_ended = self.length == 0
        self.is_packed = False
        self.shared: memoryview | None = None
        self.expects_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        self._headers = headers
        self._received = 0
        self._is_passed = False
        self._began = 0.0
        self._looked_again = False
        self._timer: asyncio.TimerHandle | None = None
        self._reader: asyncio.Task[Any] | None = None
        self._problem: DelenError | None = None

    def check(self, limit: int) -> None:
        """Raises what is wrong with a body before any of it is read: TooLarge for one announced as
        larger than ``limit`` bytes, UnsupportedCoding for a coding that is not known, InvalidInput
        for one that is not in the memory where it is said to be."""
        if (place := self._headers.get(_SHARED)) is not None:
            self.shared = self._find(place)
            self.length = len(self.shared)
        if self.length is not None and self.length > limit:
            raise TooLarge(f"the body has {self.length} bytes; the limit is {limit}")
        coding = self._headers.get(b"content-encoding", b"identity").lower()
        self.is_packed = coding.removeprefix(b"x-") in CODINGS
        if coding != b"identity" and not self.is_packed:
            raise UnsupportedCoding(
                f"Content-Encoding is {coding.decode('latin-1')!r}; accepted: gzip, deflate, "
                "identity"
            )

    def _find(self, place: bytes) -> memoryview:
        """The body in the memory that the client shares, at ``place``: where it begins, and how
        many bytes it has."""
        memory = self._connection.memory
        if not self.has_ended:
            raise InvalidInput(f"a request with {_IN_MEMORY} has no other body", _IN_MEMORY)
        found = _PLACE.fullmatch(place)
        begin, size = (0, 0) if found is None else (int(found[1]), int(found[2]))
        if not 0 < size <= len(memory) - begin:
            raise InvalidInput(
                f"{_IN_MEMORY} is {place.decode('latin-1')!r}; it must be BEGIN+SIZE within the "
                f"{len(memory)} bytes that this connection shares",
                _IN_MEMORY,
            )
        return memory[begin : begin + size]

    async def read(self, limit: int) -> bytes:
        """The whole body, or a copy of it. InvalidInput when it is cut short, RequestTimeout when
        it comes too slowly, TooLarge once more than ``limit`` bytes have come."""
        if self.shared is not None:
            self._take(len(self.shared), limit)
            return bytes(self.shared)
        if self.has_ended:
            return b""
        pieces: list[bytes] = []
        if self.length is None or self._connection.held < self.length:
            self._began = time.monotonic()
            self._time(self._connection.patience.head, self._check_rate)
        try:
            self._begin()
            while not self.has_ended:
                pieces.append(await self._next())
                self._take(self._received, limit)
        finally:
            self._end()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take(self, size: int, limit: int) -> None:
        """So many bytes are held now."""
        if size > limit:
            raise TooLarge(f"the body is larger than the limit of {limit} bytes")
        self._held = self._memory.take(size, self._held)

    def release(self) -> None:
        """Nothing of the body is held any more."""
        self.shared = None
        self._memory.give_back(self._held)
        self._held = 0

    async def discard(self) -> bool:
        """Take in what a refused client still sends, within limits; whether that was all. A
        connection that is closed over unread bytes is reset, and a client that sends all before it
        reads never sees why."""
        if self._problem is not None:
            return False
        end = self._received + _MOST_DISCARDED
        late = RequestTimeout("the rest of a refused body did not come")
        self._time(_DISCARD_SECONDS, lambda: self._stop(late))
        try:
            self._begin()
            while not self.has_ended and self._received < end:
                await self._next()
        except (DelenError, ClientGone):
            return False
        finally:
            self._end()
        return self.has_ended

    def _begin(self) -> None:
        """The calling task reads from now on."""
        self._reader = asyncio.current_task()
        self._connection.on_end = self._end_soon
        if self.length is not None and not self._is_passed:
            self._is_passed = True
            self._connection.pass_body(self.length)

    def _end(self) -> None:
        self._reader = None
        if self._timer is not None:
            self._timer.cancel()

    def _time(self, seconds: float, call: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, call)

    async def _next(self) -> bytes:
        if self.length is None:
            self._connection.pass_body(_SLICE)
        if self._connection.sends_no_more and not self._connection.held:
            self._end_soon()
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if self._problem is None:
                raise
            raise self._problem from None
        if message["type"] != "http.request":
            raise ClientGone
        piece: bytes = message["body"]
        self._received += len(piece)
        self.has_ended = not message["more_body"]
        if self.has_ended:
            self._connection.body_ended()
        return piece

    def _check_rate(self) -> None:
        patience = self._connection.patience
        left = self._began + patience.head + self._received / patience.body_rate - time.monotonic()
        if left > 0 or not self._looked_again:
            self._looked_again = left <= 0  # what came while the loop stood still is read first
            self._time(max(left, _LOOK_AGAIN), self._check_rate)
        else:
            self._stop(
                RequestTimeout(
                    f"the body came too slowly: at least {patience.body_rate:g} bytes a second "
                    f"are needed after {patience.head:g} seconds"
                )
            )

    def _end_soon(self) -> None:
        """After what has come was read: nothing follows it."""
        asyncio.get_running_loop().call_soon(self._cut_short)

    def _cut_short(self) -> None:
        of = "before its end" if self.length is None else f"of {self.length} bytes"
        self._stop(InvalidInput(f"the body ends after {self._received} {of}"))

    def _stop(self, problem: DelenError) -> None:
        if self._reader is not None:
            self._problem = problem
            self._reader.cancel()


def unpack(raw: bytes, limit: int) -> bytes:
    """What ``raw`` was packed from with gzip or deflate. TooLarge beyond ``limit`` bytes,
    InvalidInput if it is not whole."""
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        whole = unpacker.decompress(raw, limit + 1)
    except zlib.error as error:
        raise InvalidInput(f"the body is not packed as it says: {error}") from None
    if len(whole) > limit:
        raise TooLarge(f"the unpacked body is larger than the limit of {limit} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidInput("the packed body is cut off, or something follows it")
    return whole
