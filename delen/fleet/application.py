"""The hub's addresses as one ASGI application, on the event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from api.exchange import HttpRequest, check_framing, exchange, read_body
from api.guard import check_token
from api.parse import read_query, read_request
from api.refusals import Refusals
from api.reply import Reply
from api.server.asgi import Receive, Scope, Send
from api.server.body import BodyMemory
from delen.errors import MethodNotAllowed, NotFound, Overloaded
from delen.fleet.metrics import HubMetrics
from delen.fleet.router import Router
from delen.wire.fleet import RouteRequest
from delen.wire.models import Health
from delen.wire.requests import NoFields

ROUTE = "/v1/route"
LARGEST_BODY = 131_072
"""Bytes: as many links as a request may name."""

_MOST_BODIES = 64e6
_METRICS = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),)


@dataclass(frozen=True, slots=True)
class HubService:
    """What the addresses need. ``token`` is what clients need for a route, if it is set."""

    router: Router
    metrics: HubMetrics
    health: Callable[[], Health]
    token: str | None


class HubApplication:
    """``POST /v1/route``, ``GET /v1/nodes``, ``/healthz`` and ``/metrics``."""

    def __init__(self, service: HubService) -> None:
        self._refusals, self._memory = Refusals(service.metrics), BodyMemory(_MOST_BODIES)
        self._service = service
        self._views: Mapping[str, Callable[[], Reply]] = {
            "/v1/nodes": lambda: Reply.of(service.router.nodes()),
            "/healthz": self._health,
            "/metrics": lambda: Reply(service.metrics.exposition(), headers=_METRICS),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await exchange(self._answer, self._refusals, self._memory, scope, receive, send)

    async def _answer(self, scope: Scope, request: HttpRequest) -> Reply:
        if request.connection.is_surplus:
            raise Overloaded("as many connections are open as the hub allows", retry_after=1.0)
        check_framing(scope, request)
        if request.path == ROUTE:
            if request.method != "POST":
                raise MethodNotAllowed(f"{request.method} is not offered at {ROUTE}")
            return await self._route(request)
        view = self._views.get(request.path)
        if view is None:
            raise NotFound(f"there is nothing at {request.path}")
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{request.method} is not offered at {request.path}")
        read_query(NoFields, request.query)
        return view()

    async def _route(self, request: HttpRequest) -> Reply:
        if self._service.token is not None:
            given = request.headers.get(b"authorization", b"").decode("latin-1")
            check_token(self._service.token, given)
        raw = await read_body(request, LARGEST_BODY)
        asked = read_request(RouteRequest, request.query, raw)
        return Reply.of(self._service.router.route(asked))

    def _health(self) -> Reply:
        health = self._service.health()
        return Reply.of(health, 503 if health.status == "failing" else 200)
