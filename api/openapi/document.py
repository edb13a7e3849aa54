"""The OpenAPI 3.1 description of ``/v1`` and ``/v2``, made of the messages that are read and
written."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import msgspec

from api.openapi.oip import OIP_OPERATIONS
from api.openapi.operation import GUARDED, Operation
from api.reply import JSON
from delen.engine.inputs import BODY_TYPES, RAW
from delen.engine.inputs import TEXT as PLAIN_TEXT
from delen.wire.answers import Feedback, Plan, Result, Results, SettledRequest, SharedMemory
from delen.wire.errors import Error
from delen.wire.events import Event, Lost
from delen.wire.figures import Figures
from delen.wire.fleet import Directives, DirectivesInForce, Standing
from delen.wire.message import schema_of
from delen.wire.models import Health, Model, Models, Ready
from delen.wire.policies import Policies, PolicyChange
from delen.wire.power import Power, PowerHistory
from delen.wire.requests import (
    BUNDLE,
    PARTS,
    EventFields,
    HistoryFields,
    InferBody,
    Labels,
    PlanFields,
    PowerChange,
    ResumeFields,
    SuspendableFields,
    TenantChange,
)
from delen.wire.tenants import Tenant, Tenants

_IN_PATH = re.compile(r"\{(\w+)\}")
_TEXT = {"type": "string"}
_OBJECT = {"type": "object"}
_NUMBER = {"type": "integer", "minimum": 0}
_BINARY = {**_TEXT, "format": "binary"}
_ERRORS = (400, 408, 413, 415, 500, 503)
"""Statuses that every operation may have."""

_OPERATIONS = (
    Operation(
        "post",
        ("/v1/infer", "/v1/models/{model}/infer"),
        "Answer an input under its bounds",
        (Result, Results),
        SuspendableFields,
        InferBody,
        samples=BODY_TYPES,
        errors=(404, 422, 429, 507),
    ),
    Operation(
        "post",
        ("/v1/resume", "/v1/models/{model}/resume"),
        "Go on with a job of another node, from its features",
        (Result,),
        ResumeFields,
        samples=(RAW,),
        text_headers=(BUNDLE, PARTS),
        errors=(404, 409, 422, 429),
    ),
    Operation(
        "post",
        ("/v1/plan", "/v1/models/{model}/plan"),
        "What bounds would buy now",
        (Plan,),
        PlanFields,
        PlanFields,
        errors=(404,),
    ),
    Operation(
        "post",
        ("/v1/feedback", "/v1/models/{model}/feedback"),
        "Post the labels of past answers",
        (Feedback,),
        body=Labels,
        errors=(*GUARDED, 404),
    ),
    Operation("get", ("/v1/models",), "The models", (Models,)),
    Operation("get", ("/v1/models/{model}",), "One model", (Model,), errors=(404,)),
    Operation(
        "post", ("/v1/models/{model}/load",), "Load a model", (Model,), errors=(*GUARDED, 404, 507)
    ),
    Operation(
        "post", ("/v1/models/{model}/unload",), "Unload a model", (Model,), errors=(*GUARDED, 404)
    ),
    Operation("get", ("/v1/power",), "Power now, its source, and what limits it", (Power,)),
    Operation(
        "put",
        ("/v1/power",),
        "Change limits or the power mode",
        (Power,),
        body=PowerChange,
        errors=GUARDED,
    ),
    Operation(
        "get",
        ("/v1/power/history",),
        "The last accounting windows",
        (PowerHistory,),
        HistoryFields,
    ),
    Operation(
        "get",
        ("/v1/requests/{request_id}",),
        "A past request, its energy settled",
        (SettledRequest,),
        errors=(404,),
    ),
    Operation("get", ("/v1/tenants",), "Tenants and what they got", (Tenants,)),
    Operation(
        "put",
        ("/v1/tenants/{tenant}",),
        "Change a tenant",
        (Tenant,),
        body=TenantChange,
        errors=(*GUARDED, 507),
    ),
    Operation("get", ("/v1/policies",), "The policies in force", (Policies,)),
    Operation(
        "put",
        ("/v1/policies",),
        "Have another dispatch policy decide",
        (Policies,),
        body=PolicyChange,
        errors=GUARDED,
    ),
    Operation("get", ("/v1/standing",), "What the daemon says of itself to a fleet", (Standing,)),
    Operation("get", ("/v1/directives",), "The fleet's directives in force", (DirectivesInForce,)),
    Operation(
        "put",
        ("/v1/directives",),
        "Obey a fleet for a while",
        (DirectivesInForce,),
        body=Directives,
        errors=GUARDED,
    ),
    Operation(
        "get", ("/healthz",), "What hangs, has died or keeps failing", (Health,), is_told_why=True
    ),
    Operation("get", ("/readyz",), "Requests are accepted", (Ready,)),
    Operation(
        "get",
        ("/v1/events",),
        "What happens, as server-sent events",
        (Event, Lost, Figures),
        EventFields,
        media_type="text/event-stream",
    ),
    Operation("get", ("/v1/figures",), "The device at a glance", (Figures,)),
    Operation(
        "get",
        ("/v1/memory",),
        "Memory that this connection shares with the daemon",
        (SharedMemory,),
    ),
    Operation("get", ("/metrics",), "Prometheus metrics", media_type="text/plain"),
    Operation("get", ("/openapi.json",), "This description"),
    Operation("get", ("/docs",), "This description as a page", media_type="text/html"),
    Operation("get", ("/",), "The figures as a page", media_type="text/html"),
)


def document(version: str) -> dict[str, Any]:
    """The whole description, as ``GET /openapi.json`` gives it."""
    operations = (*_OPERATIONS, *OIP_OPERATIONS)
    messages = {Error: None} | {
        message: None
        for each in operations
        for message in (*each.answers, each.query, *([each.body] if each.body else ()))
    }
    found, schemas = msgspec.json.schema_components(
        messages, schema_hook=schema_of, ref_template="#/components/schemas/{name}"
    )
    references = dict(zip(messages, found, strict=True))
    paths: dict[str, Any] = {}
    for each in operations:
        for path in each.paths:
            paths.setdefault(path, {})[each.method] = _describe(each, path, references, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "delen", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _describe(
    operation: Operation, path: str, references: dict[Any, Any], schemas: dict[str, Any]
) -> dict[str, Any]:
    good = [references[answer] for answer in operation.answers] or [_OBJECT]
    answer: dict[str, Any] = {"description": "ok"}
    if operation.media_type != JSON:
        answer["content"] = {operation.media_type: {"schema": _TEXT}}
    elif not operation.is_empty:
        answer["content"] = _json(_one_of(good))
    if operation.headers:
        answer["content"][RAW] = {"schema": _BINARY}
    bad = _json(_one_of([references[Error], *(good if operation.is_told_why else ())]))
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
            *({"name": name, "in": "header", "schema": _NUMBER} for name in operation.headers),
            *({"name": name, "in": "header", "schema": _TEXT} for name in operation.text_headers),
        ],
        "responses": {
            "200": answer,
            **{
                str(status): {"description": status.phrase, "content": bad}
                for status in map(HTTPStatus, sorted({*_ERRORS, *operation.errors}))
            },
        },
    }
    samples = {
        media_type: {"schema": _TEXT if media_type == PLAIN_TEXT else _BINARY}
        for media_type in operation.samples
    }
    body = {} if operation.body is None else _json(references[operation.body])
    if body or samples:
        described["requestBody"] = {"content": body | samples}
    return described


def _one_of(schemas: list[Any]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"oneOf": schemas}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {JSON: {"schema": schema}}
