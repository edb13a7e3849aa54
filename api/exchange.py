"""What all HTTP applications have in common: a request is read, answered or refused, and sent."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import NamedTuple
from urllib.parse import unquote

from api.refusals import FramingError, Refusals
from api.reply import CLOSE, Reply
from api.server.asgi import Receive, Scope, Send
from api.server.body import BodyMemory, ClientGone, RequestBody, unpack
from api.server.connection import KEY, Connection

ESCAPED_SLASH = "%2F"
"""All of a path is unescaped but this, which would divide it."""

_SLASH = re.compile("%2f", re.IGNORECASE)


class HttpRequest(NamedTuple):
    """One request, its head read and its body not yet."""

    method: str
    path: str
    query: str
    headers: Mapping[bytes, bytes]
    body: RequestBody
    connection: Connection

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}"


async def exchange(
    answer: Callable[[Scope, HttpRequest], Awaitable[Reply]],
    refusals: Refusals,
    memory: BodyMemory,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Answer one request, as ``answer`` does; what that raises is said by ``refusals``. Its body is
    held in ``memory``."""
    connection: Connection = scope["state"][KEY]
    headers = dict(scope["headers"])
    request = HttpRequest(
        scope["method"],
        _path(scope["raw_path"]),
        scope["query_string"].decode("latin-1"),
        headers,
        RequestBody(connection, headers, receive, memory),
        connection,
    )
    try:
        reply = await answer(scope, request)
    except ClientGone:
        request.body.release()
        return
    except Exception as error:
        reply = refusals.of(error, request.method, request.path)
    try:
        await _send(reply, request, send)
    finally:
        request.body.release()
        connection.request_ended()


async def read_body(request: HttpRequest, limit: int) -> bytes:
    """The body of ``request``, unpacked; TooLarge where that is more than ``limit`` bytes."""
    request.body.check(limit)
    raw = await request.body.read(limit)
    return unpack(raw, limit) if request.body.is_packed else raw


def _path(raw: bytes) -> str:
    """The path with everything unescaped but slashes, which may be part of a name."""
    path = raw.decode("ascii")
    if "%" not in path:
        return path
    return ESCAPED_SLASH.join(map(unquote, _SLASH.split(path)))


def check_framing(scope: Scope, request: HttpRequest) -> None:
    """What the server's parser lets pass. FramingError where a proxy may have read another
    request."""
    version = scope["http_version"]
    if version not in ("1.0", "1.1"):
        raise FramingError(f"HTTP/{version} is not spoken here; send HTTP/1.1")
    headers = request.headers
    if len(headers) < len(scope["headers"]) or b"host" not in headers:
        hosts = sum(name == b"host" for name, _ in scope["headers"])
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise FramingError(f"a request has one Host; this one has {hosts}")
    coding = headers.get(b"transfer-encoding")
    if coding is not None and coding.lower() != b"chunked":
        raise FramingError(f"Transfer-Encoding is {coding.decode('latin-1')!r}; accepted: chunked")


async def _send(reply: Reply, request: HttpRequest, send: Send) -> None:
    body, connection = request.body, request.connection
    closes = connection.is_surplus or connection.is_crowded or b"upgrade" in request.headers
    closes = closes or (body.expects_continue and not body.has_ended)
    closes = closes or reply.stream is not None
    headers = [*reply.headers]
    if reply.stream is None and not reply.has_length:
        headers.append((b"content-length", b"%d" % len(reply.body)))
    if closes and CLOSE[0] not in reply.headers:
        headers += CLOSE
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if reply.stream is not None:
        async with aclosing(reply.stream) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    is_whole = body.has_ended or body.expects_continue
    await send({"type": "http.response.body", "body": reply.body, "more_body": not is_whole})
    if not is_whole:
        if not await body.discard():
            connection.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
