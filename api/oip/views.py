"""The protocol's control addresses over HTTP, as Flask views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from flask import Response, request

from api.guard import guarded
from api.oip.describe import Description, check_load
from api.reply import JSON, Reply, reply
from api.views import Route
from delen.engine.runtime import Runtime
from delen.errors import InvalidInput, NotOffered
from delen.wire.message import Message
from delen.wire.oip import IndexQuery, RepositoryQuery

AnyMessage = TypeVar("AnyMessage", bound=Message)

INFER_RULES = ("/v2/models/<model>/infer", "/v2/models/<model>/versions/<version>/infer")
"""What the event loop answers; Flask knows only their methods."""
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
    """Views over ``runtime``, which ``description`` describes."""

    def __init__(self, runtime: Runtime, description: Description) -> None:
        self._runtime = runtime
        self._description = description

    def routes(self) -> list[Route]:
        described = self._description
        routes: list[Route] = []

        def add(rule: str, view: Callable[..., Response], *methods: str) -> None:
            routes.append((rule, f"oip {rule}", view, [*methods]))

        add("/v2", self.server, "GET")
        add("/v2/health/live", lambda: yes(described.is_live()).to_flask(), "GET")
        add("/v2/health/ready", lambda: yes(described.is_ready()).to_flask(), "GET")
        for rule in INFER_RULES:
            add(rule, _refuse("infer"), "POST")
        for rule in _MODEL:
            add(rule, _of(described.model), "GET")
            add(f"{rule}/ready", lambda **of: yes(described.is_model_ready(**of)).to_flask(), "GET")
            add(f"{rule}/config", _of(described.config), "GET")
            add(f"{rule}/stats", _of(described.statistics), "GET")
        add("/v2/models/stats", _of(described.statistics), "GET")
        add("/v2/repository/index", self.index, "POST")
        add("/v2/repository/models/<model>/load", self.load, "POST")
        add("/v2/repository/models/<model>/unload", self.unload, "POST")
        for rule, what in _NOT_OFFERED:
            add(rule, _refuse(what), "GET", "POST")
        return routes

    def server(self) -> Response:
        return reply(self._description.server(has_shared_memory=False))

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
        self._runtime.unload(model)
        return Response()


def _of(describe: Callable[..., Message]) -> Callable[..., Response]:
    return lambda **of: reply(describe(**of))


def yes(holds: bool) -> Reply:
    """The answer to a question of health."""
    return Reply(b"", 200 if holds else 400, ())


def _refuse(what: str) -> Callable[..., Response]:
    def refuse(**_: Any) -> Response:
        raise NotOffered(f"this server does not offer {what}")

    return refuse


def _read(kind: type[AnyMessage]) -> AnyMessage:
    """The message in the body; an empty one says nothing."""
    try:
        return msgspec.json.decode(request.get_data() or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the request's JSON cannot be read: {error}") from None
