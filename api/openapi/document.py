"""The OpenAPI 3.1 description of ``/v1``, made of the messages that the views read and write."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from delen.engine.inputs import BODY_TYPES
from delen.engine.inputs import TEXT as PLAIN_TEXT
from delen.wire.answers import Feedback, Plan, Result, Results, SettledRequest, SharedMemory
from delen.wire.errors import Error
from delen.wire.events import Event, Lost
from delen.wire.message import Message, Request, schema_of
from delen.wire.models import Health, Model, Models, Ready
from delen.wire.power import Power, PowerHistory
from delen.wire.requests import (
    HistoryFields,
    InferBody,
    InferFields,
    Labels,
    NoFields,
    PlanFields,
    PowerChange,
    TenantChange,
)
from delen.wire.tenants import Tenant, Tenants

_IN_PATH = re.compile(r"\{(\w+)\}")
_TEXT = {"type": "string"}
_OBJECT = {"type": "object"}
_SAMPLES = {
    media_type: {"schema": _TEXT if media_type == PLAIN_TEXT else {**_TEXT, "format": "binary"}}
    for media_type in BODY_TYPES
}


@dataclass(frozen=True, slots=True)
class _Operation:
    """One method of an address. ``answers`` are the messages of a good answer; none: any object.
    One of another ``media_type`` than JSON is a text, which may have those messages in it.
    ``samples`` says that a body may be an input of another type than JSON; ``errors`` are the
    statuses that it may have beside those of all."""

    method: str
    paths: tuple[str, ...]
    summary: str
    answers: tuple[type[Message], ...] = ()
    query: type[Request] = NoFields
    body: type[Request] | None = None
    samples: bool = False
    media_type: str = "application/json"
    errors: tuple[int, ...] = ()


_ERRORS = (400, 408, 413, 415, 500, 503)
"""Statuses that every operation may have."""
_GUARDED = (401, 403)

_OPERATIONS = (
    _Operation(
        "post",
        ("/v1/infer", "/v1/models/{model}/infer"),
        "Answer an input under its bounds",
        (Result, Results),
        InferFields,
        InferBody,
        samples=True,
        errors=(404, 422, 429),
    ),
    _Operation(
        "post",
        ("/v1/plan", "/v1/models/{model}/plan"),
        "What bounds would buy now",
        (Plan,),
        PlanFields,
        PlanFields,
        errors=(404,),
    ),
    _Operation(
        "post",
        ("/v1/feedback", "/v1/models/{model}/feedback"),
        "Post the labels of past answers",
        (Feedback,),
        body=Labels,
        errors=(*_GUARDED, 404),
    ),
    _Operation("get", ("/v1/models",), "The models", (Models,)),
    _Operation("get", ("/v1/models/{model}",), "One model", (Model,), errors=(404,)),
    _Operation(
        "post", ("/v1/models/{model}/load",), "Load a model", (Model,), errors=(*_GUARDED, 404)
    ),
    _Operation(
        "post", ("/v1/models/{model}/unload",), "Unload a model", (Model,), errors=(*_GUARDED, 404)
    ),
    _Operation("get", ("/v1/power",), "Power now, its source, and what limits it", (Power,)),
    _Operation(
        "put",
        ("/v1/power",),
        "Change limits or the power mode",
        (Power,),
        body=PowerChange,
        errors=_GUARDED,
    ),
    _Operation(
        "get",
        ("/v1/power/history",),
        "The last accounting windows",
        (PowerHistory,),
        HistoryFields,
    ),
    _Operation(
        "get",
        ("/v1/requests/{request_id}",),
        "A past request, its energy settled",
        (SettledRequest,),
        errors=(404,),
    ),
    _Operation("get", ("/v1/tenants",), "Tenants and what they got", (Tenants,)),
    _Operation(
        "put",
        ("/v1/tenants/{tenant}",),
        "Change a tenant",
        (Tenant,),
        body=TenantChange,
        errors=(*_GUARDED, 507),
    ),
    _Operation("get", ("/healthz",), "What hangs, has died or keeps failing", (Health,)),
    _Operation("get", ("/readyz",), "Requests are accepted", (Ready,)),
    _Operation(
        "get",
        ("/v1/events",),
        "What happens, as server-sent events",
        (Event, Lost),
        media_type="text/event-stream",
    ),
    _Operation(
        "get",
        ("/v1/memory",),
        "Memory that this connection shares with the daemon",
        (SharedMemory,),
    ),
    _Operation("get", ("/metrics",), "Prometheus metrics", media_type="text/plain"),
    _Operation("get", ("/openapi.json",), "This description"),
    _Operation("get", ("/docs",), "This description as a page", media_type="text/html"),
)


def document(version: str) -> dict[str, Any]:
    """The whole description, as ``GET /openapi.json`` gives it."""
    messages = {Error: None} | {
        message: None
        for each in _OPERATIONS
        for message in (*each.answers, each.query, *([each.body] if each.body else ()))
    }
    _, schemas = msgspec.json.schema_components(
        messages, schema_hook=schema_of, ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = {}
    for each in _OPERATIONS:
        for path in each.paths:
            paths.setdefault(path, {})[each.method] = _describe(each, path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "delen", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _describe(operation: _Operation, path: str, schemas: dict[str, Any]) -> dict[str, Any]:
    good = [_reference(answer) for answer in operation.answers] or [_OBJECT]
    content = _json(good[0] if len(good) == 1 else {"oneOf": good})
    if operation.media_type != "application/json":
        content = {operation.media_type: {"schema": _TEXT}}
    bad = _json(_reference(Error))
    if Health in operation.answers:  # which says why also where it is not well
        bad = _json({"oneOf": [_reference(Error), *good]})
    described: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": _TEXT}
                for name in _IN_PATH.findall(path)
            ),
            *(
                {"name": name, "in": "query", "schema": schema}
                for name, schema in schemas[operation.query.__name__]["properties"].items()
            ),
        ],
        "responses": {
            "200": {"description": "ok", "content": content},
            **{
                str(status): {"description": status.phrase, "content": bad}
                for status in map(HTTPStatus, sorted({*_ERRORS, *operation.errors}))
            },
        },
    }
    if operation.body is not None:
        samples = _SAMPLES if operation.samples else {}
        described["requestBody"] = {"content": _json(_reference(operation.body)) | samples}
    return described


def _reference(message: type[Message]) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{message.__name__}"}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
