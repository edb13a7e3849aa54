"""All addresses as one ASGI application: infer, health and what a fleet asks once a second on the
event loop, the rest in Flask."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from a2wsgi import WSGIMiddleware

from api.caller import Caller
from api.dashboard.feed import FiguresFeed
from api.dashboard.figures import make_figures
from api.events import EventAddress
from api.exchange import HttpRequest, check_framing, exchange, read_body
from api.fleet_views import DIRECTIVES, MOST_DIRECTIVES, STANDING, FleetViews
from api.guard import check_origin, is_oip
from api.infer import InferAddress, answer_memory
from api.oip.access import RegionAccess
from api.oip.describe import Description
from api.oip.infer import OipInfer
from api.oip.regions import Regions
from api.oip.views import OipViews, answer_live
from api.oip.views import answer_ready as answer_oip_ready
from api.readers import Readers
from api.refusals import Refusals
from api.reply import Reply
from api.resume import ResumeAddress
from api.server.asgi import Receive, Scope, Send
from api.server.body import BodyMemory
from api.views import EVENTS, MEMORY, Service, answer_health, answer_ready, create_control
from delen.errors import Draining, Overloaded
from delen.profile.device import available_cores

_INFER = re.compile(r"/v1/(?:models/([^/]+)/)?infer", re.DOTALL)
_RESUME = re.compile(r"/v1/(?:models/([^/]+)/)?resume", re.DOTALL)
_OIP_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer", re.DOTALL)
_MOST_CONTROL = 4_000_000
"""Bytes of a body at the control addresses: as many labels as may be posted back at once."""
_READS = ("GET", "HEAD", "OPTIONS")
_LOCK_SECONDS = 0.002
"""How long the event loop waits for the engine's lock."""
_OPTIONS = Reply(b"", 200, ((b"allow", b"GET, HEAD, OPTIONS, POST, PUT"),))


class Application:
    """What the server calls for each request. ``threads`` answer the control addresses, and as many
    others submit inputs that may have to wait, which keeps no control address from answering."""

    def __init__(self, service: Service, threads: int) -> None:
        self._service = service
        self._runtime = service.runtime
        self._refusals, self._memory = Refusals(service.metrics), BodyMemory(service.max_bodies)
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
            ThreadPoolExecutor(threads, "http-submit"),
            service.metrics.failed,
            service.tenants,
        )
        self._resume = ResumeAddress(runtime, self._infer, service.max_body)
        feed = FiguresFeed(lambda: make_figures(service), self._control.executor)
        self._events = EventAddress(service.runtime.events, feed)
        self._fleet = FleetViews(service.runtime)
        self._fleet_answers: dict[tuple[str, str], Callable[[HttpRequest], Awaitable[Reply]]] = {
            ("GET", STANDING): self._answer_standing,
            ("PUT", DIRECTIVES): self._obey,
        }
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
            port,
            self._access,
            self._memory,
        ).handler()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await exchange(self._answer, self._refusals, self._memory, scope, receive, send)

    async def _answer(self, scope: Scope, request: HttpRequest) -> Reply:
        if request.connection.is_surplus:
            raise Overloaded(
                "as many connections are open as server.connections allows",
                retry_after=max(1.0, self._runtime.backlog_seconds()),
            )
        check_framing(scope, request)
        request.body.check(self._service.max_body)
        method, path = request.method, request.path
        if b"origin" in request.headers and method not in _READS:
            check_origin(Caller.of(scope, request.headers))
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
        if path == MEMORY and method != "OPTIONS":
            return answer_memory(request)
        if path == EVENTS and method != "OPTIONS":
            if self._runtime.draining:
                raise Draining("the daemon is stopping", retry_after=1.0)
            return self._events.answer(request, scope["http_version"])
        caller = Caller.of(scope, request.headers)
        self._service.guard.check(self._views.get(endpoint), caller, is_oip(path))
        if fleet := self._fleet_answers.get((method, path)):
            return await fleet(request)
        return await self._ask_control(scope, request)

    async def _answer_standing(self, request: HttpRequest) -> Reply:
        if self._runtime.is_unlocked(_LOCK_SECONDS):
            return self._fleet.answer_standing(request.query)
        loop, threads = asyncio.get_running_loop(), self._control.executor
        return await loop.run_in_executor(threads, self._fleet.answer_standing, request.query)

    async def _obey(self, request: HttpRequest) -> Reply:
        body = await read_body(request, min(MOST_DIRECTIVES, self._service.max_body))
        return self._fleet.obey(request.query, body)

    async def _ask_control(self, scope: Scope, request: HttpRequest) -> Reply:
        """What Flask answers, in a thread that waits for no client."""
        raw = await read_body(request, min(_MOST_CONTROL, self._service.max_body))
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
