"""Connections to the daemon that are kept and used again: for threads, and for an event loop."""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401  # loaded at first use, a fork meanwhile would break it
import select
import socket
import time
from contextlib import suppress
from math import inf

from delen.sdk.http import (
    Answer,
    AnswerReader,
    Endpoint,
    Late,
    Pieces,
    Request,
    Unanswered,
    Unconnected,
)
from delen.sdk.idle import IdleConnections
from delen.sdk.memory import LEAST, SharedMemory

_AT_ONCE = 65_536
_TRY_AGAIN = 0.002
_LATE = "there was no whole answer in time"


class ThreadConnection:
    """A connection of whichever thread uses it."""

    def __init__(
        self, connection: socket.socket, memory: SharedMemory | None, largest: float
    ) -> None:
        self.memory = memory
        self._largest = largest
        self._socket = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def is_open(self) -> bool:
        return not self._poll.poll(0)

    def close(self) -> None:
        self._socket.close()

    def exchange(self, pieces: Pieces, deadline: float) -> tuple[Answer, bool]:
        """The answer to what is sent as ``pieces``, and whether the connection can be used again.
        Raises Unanswered or Late."""
        reader = AnswerReader(self._largest)
        try:
            # the daemon may refuse a body that it has not read, and close
            with suppress(BrokenPipeError, ConnectionResetError):
                for piece in pieces:
                    self._socket.settimeout(_left(deadline))
                    self._socket.sendall(piece)
            while reader.answer is None:
                self._socket.settimeout(_left(deadline))
                reader.feed(self._socket.recv(_AT_ONCE))
            return reader.answer, reader.keeps
        except TimeoutError:
            raise Late(_LATE) from None
        except OSError as error:
            raise Unanswered(str(error), reader.has_begun) from error


class Pool(IdleConnections[ThreadConnection]):
    """Connections for threads, each with one request at a time. Answers have at most ``largest``
    bytes."""

    def __init__(self, endpoint: Endpoint, largest: float = inf) -> None:
        super().__init__(endpoint)
        self._largest = largest

    def exchange(self, request: Request, timeout: float) -> Answer:
        """The answer to a request, within ``timeout`` seconds. Where the daemon closes a kept
        connection just as it is used, the request is sent once more. Raises Unconnected, Unanswered
        or Late."""
        deadline = time.monotonic() + timeout
        if (kept := self._take(request.size)) is not None:
            try:
                return self._ask(kept, request, deadline)
            except Unanswered as error:
                if error.has_begun:
                    raise
        return self._ask(self._connect(request.size, deadline), request, deadline)

    def close(self) -> None:
        for connection in self._close_idle():
            connection.close()

    def _ask(self, connection: ThreadConnection, request: Request, deadline: float) -> Answer:
        keeps = False
        try:
            answer, keeps = connection.exchange(self._wire(connection, request), deadline)
            return answer
        finally:
            self._give_back(connection, keeps)

    def _connect(self, size: int, deadline: float) -> ThreadConnection:
        """A new connection, with memory for a body of ``size`` bytes if the daemon takes it."""
        connection = self._open(size, deadline)
        if connection.memory is None:
            return connection
        is_shared = False
        try:
            answer, keeps = connection.exchange((), deadline)
            is_shared = self._sharing.read(answer.status, answer.body, connection.memory) and keeps
        except Unanswered:
            pass
        finally:
            if not is_shared:
                connection.close()
        return connection if is_shared else self._open(0, deadline)

    def _open(self, size: int, deadline: float) -> ThreadConnection:
        endpoint = self._endpoint
        try:
            if endpoint.socket is not None:
                made = _connect_unix(endpoint.socket, deadline)
                memory = self._bring_memory(made, size)
                return ThreadConnection(made, memory, self._largest)
            made = socket.create_connection((endpoint.host, endpoint.port), _left(deadline))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if endpoint.tls is not None:
                made = endpoint.tls.wrap_socket(made, server_hostname=endpoint.host)
            return ThreadConnection(made, None, self._largest)
        except OSError as error:
            raise Unconnected(str(error)) from error


class LoopConnection:
    """A connection of the event loop that runs."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        memory: SharedMemory | None,
    ) -> None:
        self.memory = memory
        self._reader = reader
        self._writer = writer

    def is_open(self) -> bool:
        return not (self._reader.at_eof() or self._writer.is_closing())

    def close(self) -> None:
        self._writer.close()

    async def wait_closed(self) -> None:
        with suppress(OSError):
            await self._writer.wait_closed()

    async def exchange(self, pieces: Pieces) -> tuple[Answer, bool]:
        """As ``ThreadConnection.exchange``."""
        reader = AnswerReader()
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                for piece in pieces:
                    self._writer.write(piece)
                await self._writer.drain()
            while reader.answer is None:
                reader.feed(await self._reader.read(_AT_ONCE))
            return reader.answer, reader.keeps
        except OSError as error:
            raise Unanswered(str(error), reader.has_begun) from error


class AsyncPool(IdleConnections[LoopConnection]):
    """Connections for the event loop that runs."""

    async def connect(self) -> None:
        """Open a connection, and keep it. Unconnected where that cannot be."""
        self._give_back(await self._connect(0), True)

    async def exchange(self, request: Request, timeout: float | None) -> Answer:
        """As ``Pool.exchange``; None waits without end."""
        try:
            return await asyncio.wait_for(self._exchange(request), timeout)
        except asyncio.TimeoutError:
            raise Late(_LATE) from None

    async def _exchange(self, request: Request) -> Answer:
        if (kept := self._take(request.size)) is not None:
            try:
                return await self._ask(kept, request)
            except Unanswered as error:
                if error.has_begun:
                    raise
        return await self._ask(await self._connect(request.size), request)

    async def close(self) -> None:
        for connection in self._close_idle():
            connection.close()
            await connection.wait_closed()

    async def _ask(self, connection: LoopConnection, request: Request) -> Answer:
        keeps = False
        try:
            answer, keeps = await connection.exchange(self._wire(connection, request))
            return answer
        finally:
            self._give_back(connection, keeps)

    async def _connect(self, size: int) -> LoopConnection:
        """As ``Pool._connect``."""
        connection = await self._open(size)
        if connection.memory is None:
            return connection
        is_shared = False
        try:
            answer, keeps = await connection.exchange(())
            is_shared = self._sharing.read(answer.status, answer.body, connection.memory) and keeps
        except Unanswered:
            pass
        finally:
            if not is_shared:
                connection.close()
        return connection if is_shared else await self._open(0)

    async def _open(self, size: int) -> LoopConnection:
        endpoint = self._endpoint
        try:
            if endpoint.socket is None:
                streams = await asyncio.open_connection(
                    endpoint.host, endpoint.port, ssl=endpoint.tls
                )
                return LoopConnection(*streams, None)
            made = await _open_unix(endpoint.socket)
            memory = self._bring_memory(made, size)
            return LoopConnection(*await asyncio.open_unix_connection(sock=made), memory)
        except OSError as error:
            raise Unconnected(str(error)) from error


def ask_sharing(endpoint: Endpoint, timeout: float) -> None:
    """Have the daemon at ``endpoint`` say whether it takes memory, if it answers."""
    pool = Pool(endpoint)
    with suppress(Unconnected, Late):
        pool._connect(LEAST, time.monotonic() + timeout).close()


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
