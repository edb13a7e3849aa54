"""All addresses as one ASGI application: infer and health on the event loop, the rest in Flask."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any, cast
from urllib.parse import unquote

from a2wsgi import WSGIMiddleware

from api.energy_views import ESCAPED_SLASH
from api.events import EventAddress
from api.infer import HttpRequest, InferAddress, answer_memory
from api.oip.access import RegionAccess
from api.oip.describe import Description
from api.oip.infer import OipInfer
from api.oip.regions import Regions
from api.oip.views import OipViews, answer_live
from api.oip.views import answer_ready as answer_oip_ready
from api.readers import Readers
from api.refusals import FramingError, Refusals
from api.reply import CLOSE, Reply
from api.resume import ResumeAddress
from api.server.asgi import Receive, Scope, Send
from api.server.body import BodyMemory, ClientGone, RequestBody, unpack
from api.server.connection import KEY, Connection
from api.views import EVENTS, MEMORY, Service, answer_health, answer_ready, create_control
from delen.errors import Draining, Overloaded
from delen.profile.device import available_cores

_INFER = re.compile(r"/v1/(?:models/([^/]+)/)?infer", re.DOTALL)
_RESUME = re.compile(r"/v1/(?:models/([^/]+)/)?resume", re.DOTALL)
_OIP_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer", re.DOTALL)
_SLASH = re.compile("%2f", re.IGNORECASE)
_MOST_CONTROL = 4_000_000
"""Bytes of a body at the control addresses: as many labels as may be posted back at once."""
_OPTIONS = Reply(b"", 200, ((b"allow", b"GET, HEAD, OPTIONS, POST, PUT"),))


class Application:
    """What the server calls for each request. ``threads`` answer the control addresses."""

    def __init__(self, service: Service, threads: int) -> None:
        self._service = service
        self._runtime = service.runtime
        self._refusals = Refusals(service.metrics)
        self._description = description = Description(service)
        self._access = access = RegionAccess(Regions(service.max_body), service.shared_memory)
        oip = OipViews(service.runtime, description, access)
        control = create_control(service, self._refusals, oip.routes())
        self._routes = control.url_map.bind("")
        self._views = control.view_functions
        self._control = WSGIMiddleware(cast(Any, control), workers=threads)
        runtime = service.runtime
        readers = Readers(max(2, available_cores() // 2), runtime.charge, runtime.knows)
        self._infer = InferAddress(
            runtime,
            service.max_body,
            readers,
            self._control.executor,
            service.metrics.failed,
        )
        self._resume = ResumeAddress(runtime, self._infer, service.max_body)
        self._memory = BodyMemory(service.max_bodies)
        self._events = EventAddress(service.runtime.events)
        self._oip_infer = OipInfer(service.runtime, self._infer, service.max_body, access)
        self._health: dict[str, Callable[[], Reply]] = {
            "/healthz": lambda: answer_health(service),
            "/readyz": lambda: answer_ready(service),
            "/v2/health/live": lambda: answer_live(description),
            "/v2/health/ready": lambda: answer_oip_ready(description),
        }

    @property
    def max_body(self) -> int:
        return self._service.max_body

    def grpc_handler(self, port: int) -> Any:
        """What answers the protocol's calls to ``port`` over gRPC. ModuleNotFoundError without the
        extra."""
        from api.oip.grpc_service import GrpcService

        threads = self._control.executor
        return GrpcService(
            self._service,
            self._infer,
            self._description,
            self._refusals,
            threads,
            partial(self._access.tcp_user, own_port=port),
            self._access,
            self._memory,
        ).handler()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection: Connection = scope["state"][KEY]
        headers = dict(scope["headers"])
        request = HttpRequest(
            scope["method"],
            _path(scope["raw_path"]),
            scope["query_string"].decode("latin-1"),
            headers,
            RequestBody(connection, headers, receive, self._memory),
            connection,
        )
        try:
            reply = await self._answer(scope, request)
        except ClientGone:
            request.body.release()
            return
        except Exception as error:
            reply = self._refusals.of(error, request.method, request.path)
        try:
            await _send(reply, request, send)
        finally:
            request.body.release()
            connection.request_ended()

    async def _answer(self, scope: Scope, request: HttpRequest) -> Reply:
        if request.connection.is_surplus:
            raise Overloaded(
                "as many connections are open as server.connections allows",
                retry_after=max(1.0, self._runtime.backlog_seconds()),
            )
        _check_framing(scope, request)
        request.body.check(self._service.max_body)
        method, path = request.method, request.path
        if method == "POST" and (found := _INFER.fullmatch(path)):
            model = found[1] or self._service.default_model
            return await self._infer.answer(request, model)
        if method == "POST" and (found := _RESUME.fullmatch(path)):
            return await self._resume.answer(request, found[1] or self._service.default_model)
        if method == "POST" and (found := _OIP_INFER.fullmatch(path)):
            return await self._oip_infer.answer(request, found[1], found[2])
        if method == "OPTIONS" and path == "*":
            return _OPTIONS
        endpoint, _ = self._routes.match(path, method)
        if method in ("GET", "HEAD") and (health := self._health.get(path)):
            return health()
        if path == MEMORY:
            return answer_memory(request)
        if path == EVENTS:
            if self._runtime.draining:
                raise Draining("the daemon is stopping", retry_after=1.0)
            return self._events.answer(request, scope["http_version"])
        peer, given = scope["client"], request.headers.get(b"authorization", b"")
        view = self._views.get(endpoint)
        self._service.guard.check(view, peer and peer[0], given.decode("latin-1"))
        return await self._ask_control(scope, request)

    async def _ask_control(self, scope: Scope, request: HttpRequest) -> Reply:
        """What Flask answers, in a thread that waits for no client."""
        limit = min(_MOST_CONTROL, self._service.max_body)
        request.body.check(limit)
        raw = await request.body.read(limit)
        if request.body.is_packed:
            raw = unpack(raw, limit)
        length = str(len(raw)).encode()
        framing = (b"content-length", b"content-encoding", b"transfer-encoding")
        headers = [each for each in scope["headers"] if each[0] not in framing]
        started: dict[str, Any] = {}
        pieces: list[bytes] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": raw, "more_body": False}

        async def collect(message: Any) -> None:
            if message["type"] == "http.response.start":
                started.update(message)
            else:
                pieces.append(message["body"])

        headers.append((b"content-length", length))
        whole = {**scope, "path": request.path, "headers": headers}
        await self._control(cast(Any, whole), receive, collect)
        head = tuple(started["headers"])
        has_length = any(name == b"content-length" for name, _ in head)
        return Reply(b"".join(pieces), started["status"], head, has_length)


def _path(raw: bytes) -> str:
    """The path with everything unescaped but slashes, which may be part of a name."""
    path = raw.decode("ascii")
    if "%" not in path:
        return path
    return ESCAPED_SLASH.join(map(unquote, _SLASH.split(path)))


def _check_framing(scope: Scope, request: HttpRequest) -> None:
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
