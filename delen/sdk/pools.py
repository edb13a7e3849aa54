"""Connections to the daemon that are kept and used again: for threads, and for an event loop."""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401  # loaded at first use, a fork meanwhile would break it
import select
import socket
import time
from contextlib import suppress
from typing import TypeAlias

from delen.sdk.http import Answer, AnswerReader, Endpoint, Late, Unanswered, Unconnected

_Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_AT_ONCE = 65_536
_JOINED = 65_536
"""Bytes of a body up to which it is sent together with its head."""
_TRY_AGAIN = 0.002
_LATE = "there was no whole answer in time"


class Pool:
    """Connections for threads, each with one request at a time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._idle: list[socket.socket] = []
        self._is_closed = False

    def exchange(self, head: bytes, body: bytes, timeout: float) -> Answer:
        """The answer to a request, within ``timeout`` seconds. Where the daemon closes a kept
        connection just as it is used, the request is sent once more. Raises Unconnected, Unanswered
        or Late."""
        deadline = time.monotonic() + timeout
        if (kept := self._take_idle()) is not None:
            try:
                return self._ask(kept, head, body, deadline)
            except Unanswered as error:
                if error.has_begun:
                    raise
        return self._ask(self._connect(deadline), head, body, deadline)

    def close(self) -> None:
        self._is_closed = True
        while (connection := self._take_idle()) is not None:
            connection.close()

    def _take_idle(self) -> socket.socket | None:
        """A kept connection that the daemon has not closed."""
        with suppress(IndexError):  # another thread may take the last one
            while True:
                connection = self._idle.pop()
                poll = select.poll()
                poll.register(connection, select.POLLIN)
                if not poll.poll(0):
                    return connection
                connection.close()
        return None

    def _ask(self, connection: socket.socket, head: bytes, body: bytes, deadline: float) -> Answer:
        reader, keeps = AnswerReader(), False
        try:
            # the daemon may refuse a body that it has not read, and close
            with suppress(BrokenPipeError, ConnectionResetError):
                for piece in _pieces(head, body):
                    connection.settimeout(_left(deadline))
                    connection.sendall(piece)
            while reader.answer is None:
                connection.settimeout(_left(deadline))
                reader.feed(connection.recv(_AT_ONCE))
            keeps = reader.keeps and not self._is_closed
            return reader.answer
        except TimeoutError:
            raise Late(_LATE) from None
        except OSError as error:
            raise Unanswered(str(error), reader.has_begun) from error
        finally:
            if keeps:
                self._idle.append(connection)
            else:
                connection.close()

    def _connect(self, deadline: float) -> socket.socket:
        endpoint = self._endpoint
        try:
            if endpoint.socket is not None:
                return _connect_unix(endpoint.socket, deadline)
            made = socket.create_connection((endpoint.host, endpoint.port), _left(deadline))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if endpoint.tls is None:
                return made
            return endpoint.tls.wrap_socket(made, server_hostname=endpoint.host)
        except OSError as error:
            raise Unconnected(str(error)) from error


class AsyncPool:
    """Connections for the event loop that runs."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._idle: list[_Streams] = []
        self._is_closed = False

    async def connect(self) -> None:
        """Open a connection, and keep it. Unconnected where that cannot be."""
        self._idle.append(await self._connect())

    async def exchange(self, head: bytes, body: bytes, timeout: float | None) -> Answer:
        """As ``Pool.exchange``; None waits without end."""
        try:
            return await asyncio.wait_for(self._exchange(head, body), timeout)
        except asyncio.TimeoutError:
            raise Late(_LATE) from None

    async def _exchange(self, head: bytes, body: bytes) -> Answer:
        if (kept := self._take_idle()) is not None:
            try:
                return await self._ask(kept, head, body)
            except Unanswered as error:
                if error.has_begun:
                    raise
        return await self._ask(await self._connect(), head, body)

    async def close(self) -> None:
        self._is_closed = True
        while self._idle:
            _, writer = self._idle.pop()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _take_idle(self) -> _Streams | None:
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return None

    async def _ask(self, streams: _Streams, head: bytes, body: bytes) -> Answer:
        stream, writer = streams
        reader, keeps = AnswerReader(), False
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                for piece in _pieces(head, body):
                    writer.write(piece)
                await writer.drain()
            while reader.answer is None:
                reader.feed(await stream.read(_AT_ONCE))
            keeps = reader.keeps and not self._is_closed
            return reader.answer
        except OSError as error:
            raise Unanswered(str(error), reader.has_begun) from error
        finally:
            if keeps:
                self._idle.append(streams)
            else:
                writer.close()

    async def _connect(self) -> _Streams:
        endpoint = self._endpoint
        try:
            if endpoint.socket is None:
                return await asyncio.open_connection(endpoint.host, endpoint.port, ssl=endpoint.tls)
            return await asyncio.open_unix_connection(sock=await _open_unix(endpoint.socket))
        except OSError as error:
            raise Unconnected(str(error)) from error


def _pieces(head: bytes, body: bytes) -> list[bytes]:
    """What is sent one after the other: a large body is not copied."""
    return [head + body] if len(body) <= _JOINED else [head, body]


def _left(deadline: float) -> float:
    """Seconds until then; TimeoutError where none are left."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect_unix(path: str, deadline: float) -> socket.socket:
    """A socket connected to ``path``, as soon as its backlog has room."""
    made = _unix_socket()
    try:
        while not _connects(made, path):
            time.sleep(min(_TRY_AGAIN, _left(deadline)))
        return made
    except BaseException:
        made.close()
        raise


async def _open_unix(path: str) -> socket.socket:
    made = _unix_socket()
    try:
        while not _connects(made, path):
            await asyncio.sleep(_TRY_AGAIN)
        return made
    except BaseException:
        made.close()
        raise


def _unix_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)
    return made


def _connects(made: socket.socket, path: str) -> bool:
    """False while the backlog of ``path`` is full, where a Unix socket makes nobody wait."""
    try:
        made.connect(path)
    except BlockingIOError:
        return False
    return True
