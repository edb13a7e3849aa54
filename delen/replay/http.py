"""A daemon as a replay's target.

It speaks HTTP/1.1 over asyncio's streams: a load generator that shares its device with the daemon
must not slow it down. A request takes less than 0.1 ms of processor time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from delen.core.bounds import Bounds, OnInfeasible, Options
from delen.core.result import Result
from delen.errors import DaemonUnreachable, DelenError
from delen.replay.inputs import Inputs
from delen.sdk.address import unix_path
from delen.sdk.inputs import EncodedInput
from delen.simulate.trace import Arrival
from delen.wire import answers
from delen.wire.errors import read_error
from delen.wire.message import read_answer
from delen.wire.requests import InferFields

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_RETRY_SECONDS = 0.002
_GONE = (ConnectionRefusedError, ConnectionResetError, FileNotFoundError)


class _Unanswered(ConnectionError):
    """The connection ended before the first byte of an answer."""


class HttpTarget:
    """The daemon at ``url``; requests that name no model send inputs of ``default``.

    Connections are kept and used again; there are as many as there are requests under way.
    """

    def __init__(
        self,
        url: str,
        inputs: Mapping[str, Inputs],
        default: str,
        on_infeasible: OnInfeasible = "reject",
    ) -> None:
        self.url = url
        self._bodies = {name: of_model.bodies for name, of_model in inputs.items()}
        self._default = default
        self._on_infeasible = on_infeasible
        self._socket = unix_path(url)
        parts = urlsplit("http://delen" if self._socket else url)
        self._host, self._secure = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._netloc, self._prefix = parts.netloc, parts.path.rstrip("/")
        self._idle: list[_Connection] = []

    async def ask(self, arrival: Arrival, number: int) -> Result:
        body = self._bodies[arrival.model or self._default][number]
        options = Options(
            tenant=arrival.tenant,
            stream=arrival.stream,
            priority=arrival.priority,
            on_infeasible=self._on_infeasible,
        )
        address = _address(arrival.model, arrival.bounds, options)
        status, answer = await self._post(address, body)
        if status != 200:
            raise read_error(answer, status)
        try:
            return read_answer(answers.Result, answer).to(Result)
        except msgspec.DecodeError as error:
            raise DelenError(f"the daemon's answer is not as expected: {error}") from error

    async def check(self) -> None:
        connection = await self._connect()
        connection[1].close()

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _post(self, address: str, body: EncodedInput) -> tuple[int, bytes]:
        """Status and body of the answer. If a kept connection was closed before an answer began, it
        is tried once more with a new one."""
        head = (
            f"POST {self._prefix}{address} HTTP/1.1\r\nHost: {self._netloc}\r\n"
            f"Content-Type: {body.media_type}\r\nContent-Length: {len(body.body)}\r\n\r\n"
        )
        message = head.encode("ascii") + body.body
        if self._idle:
            try:
                return await self._exchange(self._idle.pop(), message)
            except _Unanswered:
                pass
        return await self._exchange(await self._connect(), message)

    async def _connect(self) -> _Connection:
        try:
            if self._socket is not None:
                return await asyncio.open_unix_connection(sock=await _unix_socket(self._socket))
            secure = ssl.create_default_context() if self._secure else None
            return await asyncio.open_connection(self._host, self._port, ssl=secure)
        except _GONE as error:
            raise DaemonUnreachable(f"no daemon answers at {self.url} ({error})") from error

    async def _exchange(self, connection: _Connection, message: bytes) -> tuple[int, bytes]:
        reader, writer = connection
        is_whole = False
        try:
            writer.write(message)
            try:
                first = await reader.readexactly(1)
            except (OSError, EOFError) as error:
                raise _Unanswered("the connection ended before an answer") from error
            status, length, keeps = _read_head(first + await reader.readuntil(b"\r\n\r\n"))
            body = await reader.readexactly(length)
            is_whole = True
        finally:
            if is_whole and keeps:
                self._idle.append(connection)
            else:
                writer.close()
        return status, body


async def _unix_socket(path: str) -> socket.socket:
    """A socket connected to ``path``. While its backlog is full, a Unix socket rejects connections,
    which asyncio takes for success."""
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        while True:
            try:
                connection.connect(path)
                return connection
            except BlockingIOError:
                await asyncio.sleep(_RETRY_SECONDS)
    except BaseException:
        connection.close()
        raise


def _read_head(head: bytes) -> tuple[int, int, bool]:
    """Status, length of the body, and whether the connection stays open."""
    status, *lines = head.decode("latin-1").lower().split("\r\n")
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    try:
        length = int(fields["content-length"])
        return int(status.split()[1]), length, fields.get("connection", "").strip() != "close"
    except (KeyError, ValueError, IndexError):
        raise DelenError(f"the daemon's answer begins {head[:80]!r}, which is not read") from None


@lru_cache(4096)
def _address(model: str | None, bounds: Bounds, options: Options) -> str:
    path = "/v1/infer" if model is None else f"/v1/models/{quote(model, safe='')}/infer"
    fields = urlencode(InferFields.asking(bounds, options).query())
    return f"{path}?{fields}" if fields else path
