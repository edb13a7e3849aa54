"""The protocol's control addresses over HTTP, as Flask views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from flask import Response, request

from api.guard import guarded
from api.oip.access import RegionAccess
from api.oip.describe import Description, check_load, check_unload
from api.reply import JSON, Reply, reply
from api.server.connection import KEY, Connection
from api.server.peer import Socket
from api.views import Route
from delen.core.json_words import in_json_words
from delen.engine.runtime import Runtime
from delen.errors import InvalidInput, NotOffered
from delen.wire.message import Message
from delen.wire.oip import IndexQuery, RegionQuery, RepositoryQuery
from delen.wire.oip import Region as RegionMessage

AnyMessage = TypeVar("AnyMessage", bound=Message)

INFER_RULES = ("/v2/models/<model>/infer", "/v2/models/<model>/versions/<version>/infer")
"""What the event loop answers; Flask knows only their methods."""
_MEMORY = "/v2/systemsharedmemory"
_MODEL = ("/v2/models/<model>", "/v2/models/<model>/versions/<version>")
_NOT_OFFERED = (
    ("/v2/cudasharedmemory/<path:rest>", "CUDA shared memory"),
    ("/v2/trace/setting", "tracing"),
    ("/v2/models/<model>/trace/setting", "tracing"),
    ("/v2/logging", "changing the log; SIGHUP reads log.level again"),
    ("/v2/models/<model>/generate", "generation of text"),
    ("/v2/models/<model>/generate_stream", "generation of text"),
    ("/v2/models/<model>/versions/<version>/generate", "generation of text"),
    ("/v2/models/<model>/versions/<version>/generate_stream", "generation of text"),
)


class OipViews:
    """Views over ``runtime``, which ``description`` describes, and the shared memory of
    ``access``."""

    def __init__(self, runtime: Runtime, description: Description, access: RegionAccess) -> None:
        self._runtime = runtime
        self._description = description
        self._access = access

    def routes(self) -> list[Route]:
        described = self._description
        routes: list[Route] = []

        def add(rule: str, view: Callable[..., Response], *methods: str) -> None:
            routes.append((rule, f"oip {rule}", view, [*methods]))

        add("/v2", self.server, "GET")
        add("/v2/health/live", lambda: answer_live(described).to_flask(), "GET")
        add("/v2/health/ready", lambda: answer_ready(described).to_flask(), "GET")
        for rule in INFER_RULES:
            add(rule, _refuse("infer"), "POST")
        for rule in _MODEL:
            add(rule, _of(described.model), "GET")
            add(f"{rule}/ready", self.model_ready, "GET")
            add(f"{rule}/config", _of(described.config), "GET")
            add(f"{rule}/stats", _of(described.statistics), "GET")
        add("/v2/models/stats", _of(described.statistics), "GET")
        add("/v2/repository/index", self.index, "POST")
        add("/v2/repository/models/<model>/load", self.load, "POST")
        add("/v2/repository/models/<model>/unload", self.unload, "POST")
        for rule in (_MEMORY, f"{_MEMORY}/region/<name>"):
            add(f"{rule}/status", self.regions, "GET")
            add(f"{rule}/unregister", self.unregister, "POST")
        add(f"{_MEMORY}/region/<name>/register", self.register, "POST")
        for rule, what in _NOT_OFFERED:
            add(rule, _refuse(what), "GET", "POST")
        return routes

    def server(self) -> Response:
        return reply(self._description.server(self._access.is_offered(_socket())))

    def model_ready(self, model: str, version: str | None = None) -> Response:
        ready = self._description.model_ready(model, version)
        return reply(ready, 200 if ready.ready else 400)

    def index(self) -> Response:
        found = self._description.index(_read(IndexQuery).ready)
        return Response(msgspec.json.encode(found), content_type=JSON)

    @guarded
    def load(self, model: str) -> Response:
        check_load(_read(RepositoryQuery).parameters)
        self._runtime.load(model)
        return Response()

    @guarded
    def unload(self, model: str) -> Response:
        check_unload(_read(RepositoryQuery).parameters)
        self._runtime.unload(model)
        return Response()

    def regions(self, name: str | None = None) -> Response:
        regions = self._access.regions.list(self._access.user(_socket()), name)
        found = [RegionMessage.of(region) for region in regions]
        return Response(msgspec.json.encode(found), content_type=JSON)

    def register(self, name: str) -> Response:
        user, asked = self._access.user(_socket()), _read(RegionQuery)
        self._access.regions.register(user, name, asked.key, asked.offset, asked.byte_size)
        return Response()

    def unregister(self, name: str | None = None) -> Response:
        self._access.regions.unregister(self._access.user(_socket()), name)
        return Response()


def _socket() -> Socket:
    """The socket of the connection that the request came on."""
    connection: Connection = request.environ["asgi.scope"]["state"][KEY]
    return connection.socket


def _of(describe: Callable[..., Message]) -> Callable[..., Response]:
    return lambda **of: reply(describe(**of))


def answer_live(description: Description) -> Reply:
    """200 while the process works, else 400."""
    live = description.live()
    return Reply.of(live, 200 if live.live else 400)


def answer_ready(description: Description) -> Reply:
    """200 while requests are accepted, else 400."""
    ready = description.ready()
    return Reply.of(ready, 200 if ready.ready else 400)


def _refuse(what: str) -> Callable[..., Response]:
    def refuse(**_: Any) -> Response:
        raise NotOffered(f"this server does not offer {what}")

    return refuse


def _read(kind: type[AnyMessage]) -> AnyMessage:
    """The message in the body; an empty one says nothing."""
    try:
        return msgspec.json.decode(request.get_data() or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = in_json_words(error)
        raise InvalidInput(f"the request's JSON cannot be read: {problem}") from None
