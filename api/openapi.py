"""The OpenAPI 3.1 description of ``/v1``, made from the same names that the views read."""

from __future__ import annotations

from typing import Any

from delen.bounds import HIGHEST_PRIORITY, LOWEST_PRIORITY
from delen.engine.preprocess import BODY_TYPES, TEXT
from delen.errors import ERRORS_BY_CODE

_NUMBER_OR_NULL = {"type": ["number", "null"]}

_BOUNDS: dict[str, Any] = {
    "max_latency_ms": {
        "type": "number",
        "exclusiveMinimum": 0,
        "description": "from the request's arrival to the answer's leaving",
    },
    "min_accuracy": {"type": "number", "minimum": 0, "maximum": 1},
    "max_energy_mj": {
        "type": "number",
        "exclusiveMinimum": 0,
        "description": "dynamic energy of this request",
    },
}
_OPTIONS: dict[str, Any] = {
    "tenant": {"type": "string"},
    "stream": {"type": "string"},
    "priority": {"type": "integer", "minimum": HIGHEST_PRIORITY, "maximum": LOWEST_PRIORITY},
    "top_k": {"type": "integer", "minimum": 1},
    "on_infeasible": {"enum": ["reject", "best_effort"]},
    "probabilities": {"type": "boolean"},
}


def _object(properties: dict[str, Any], *required: str, closed: bool = False) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    if closed:
        schema["additionalProperties"] = False
    return schema


def _outcome(**extra: Any) -> dict[str, Any]:
    return _object({"bound": _NUMBER_OR_NULL, "met": {"type": ["boolean", "null"]}, **extra})


_RESULT = _object(
    {
        "model": {"type": "string"},
        "version": {"type": "string"},
        "request_id": {"type": "string"},
        "tenant": {"type": "string"},
        "stream": {"type": ["string", "null"]},
        "predictions": {
            "type": "array",
            "items": _object(
                {
                    "index": {"type": "integer"},
                    "label": {"type": ["string", "null"]},
                    "probability": {"type": "number"},
                }
            ),
        },
        "probabilities": {"type": "array", "items": {"type": "number"}},
        "exit": {"type": "integer"},
        "exits": {"type": "integer"},
        "reason": {
            "enum": [
                "confident", "planned_exit", "latency", "energy", "final", "cancelled", "policy",
            ]
        },
        "receipt": _object(
            {
                "met": {"type": "boolean"},
                "latency_ms": _outcome(
                    value={"type": "number"}, queue={"type": "number"}, predicted={"type": "number"}
                ),
                "accuracy": _outcome(
                    expected=_NUMBER_OR_NULL, overall=_NUMBER_OR_NULL, guarantee=_NUMBER_OR_NULL
                ),
                "energy_mj": _outcome(
                    value=_NUMBER_OR_NULL,
                    predicted=_NUMBER_OR_NULL,
                    kind={"enum": ["attributed", "estimated", "unknown"]},
                    source={"type": ["string", "null"]},
                    scope={"type": ["string", "null"]},
                ),
            }
        ),
    },
    "model", "version", "request_id", "predictions", "exit", "exits", "reason", "receipt",
)  # fmt: skip

_ERROR = _object(
    {
        "error": {"type": "string"},
        "code": {"enum": sorted(ERRORS_BY_CODE)},
        "field": {"type": "string"},
        "nearest": _object(dict.fromkeys(_BOUNDS, _NUMBER_OR_NULL)),
        "retry_after_s": {"type": "number"},
    },
    "error",
    "code",
)

_PLAN = _object(
    {
        "model": {"type": "string"},
        "feasible": {"type": "boolean"},
        "problem": {"type": ["string", "null"]},
        "nearest": {"type": ["object", "null"]},
        "exit": {"type": "integer"},
        "threshold": _NUMBER_OR_NULL,
        "limited_by": {"enum": ["latency", "energy", "depth"]},
        "latency_ms": {"type": "number"},
        "energy_mj": _NUMBER_OR_NULL,
        "expected_energy_mj": _NUMBER_OR_NULL,
        "accuracy": _NUMBER_OR_NULL,
        "guarantee": _NUMBER_OR_NULL,
        "pareto": {"type": "array", "items": {"type": "object"}},
    }
)


_GUARANTEE = _object(
    {
        "holds": {"type": "boolean"},
        "source": {"enum": ["labels", "agreement", None]},
        "samples": {"type": "integer"},
        "errors": {"type": "integer"},
        "promised": _NUMBER_OR_NULL,
        "evidence": {"type": "number"},
        "delta": {"type": "number"},
    }
)
_LABELS = _object(
    {
        "labels": {
            "type": "object",
            "description": "the class of each answer by its request_id, as an index or a name",
            "additionalProperties": {"type": ["integer", "string"]},
        }
    },
    "labels",
    closed=True,
)
_FEEDBACK = _object(
    {
        "accepted": {"type": "integer"},
        "wrong": {"type": "integer"},
        "repeated": {"type": "integer"},
        "unknown": {"type": "array", "items": {"type": "string"}},
        "guarantee": _GUARANTEE,
    },
    "accepted", "unknown", "guarantee",
)  # fmt: skip


def document(version: str) -> dict[str, Any]:
    """The whole description, as ``GET /openapi.json`` gives it."""
    infer_body = {
        "application/json": {
            "schema": _object(
                {"input": {"type": ["array", "string"]}, **_BOUNDS, **_OPTIONS},
                "input",
                closed=True,
            )
        },
        **{
            media_type: {"schema": {"type": "string", "format": "binary"}}
            for media_type in BODY_TYPES
            if media_type != TEXT
        },
        TEXT: {"schema": {"type": "string"}},
    }
    bounds_body = {"application/json": {"schema": _object(_BOUNDS, closed=True)}}
    query = [
        {"name": name, "in": "query", "schema": schema}
        for name, schema in {**_BOUNDS, **_OPTIONS}.items()
    ]
    result = {"$ref": "#/components/schemas/Result"}
    plan = {"$ref": "#/components/schemas/Plan"}
    anything = {"type": "object"}

    def infer() -> dict[str, Any]:
        summary = "Answer an input under its bounds"
        return {"post": _operation(summary, result, body=infer_body, query=query)}

    def make_plan() -> dict[str, Any]:
        summary = "What bounds would buy now"
        return {"post": _operation(summary, plan, body=bounds_body, query=query[:3])}

    def give_feedback() -> dict[str, Any]:
        summary = "Post the labels of past answers"
        feedback = {"$ref": "#/components/schemas/Feedback"}
        body = {"application/json": {"schema": _LABELS}}
        return {"post": _operation(summary, feedback, body=body)}

    paths: dict[str, Any] = {
        "/v1/infer": infer(),
        "/v1/models/{model}/infer": infer(),
        "/v1/plan": make_plan(),
        "/v1/models/{model}/plan": make_plan(),
        "/v1/feedback": give_feedback(),
        "/v1/models/{model}/feedback": give_feedback(),
        "/v1/models": {"get": _operation("The models", anything)},
        "/v1/models/{model}": {"get": _operation("One model", anything)},
        "/v1/models/{model}/load": {"post": _operation("Load a model", anything)},
        "/v1/models/{model}/unload": {"post": _operation("Unload a model", anything)},
        "/v1/power": {"get": _operation("Power now, and its source", anything)},
        "/healthz": {"get": _operation("The process lives", anything)},
        "/readyz": {"get": _operation("Requests are taken", anything)},
        "/metrics": {"get": _operation("Prometheus metrics", None)},
        "/openapi.json": {"get": _operation("This description", anything)},
    }
    for path, operations in paths.items():
        if "{model}" in path:
            for operation in operations.values():
                operation["parameters"] = [
                    {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}},
                    *operation.get("parameters", []),
                ]
    return {
        "openapi": "3.1.0",
        "info": {"title": "delen", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": {"Result": _RESULT, "Error": _ERROR, "Plan": _PLAN, "Feedback": _FEEDBACK}
        },
    }


def _operation(
    summary: str,
    schema: dict[str, Any] | None,
    body: dict[str, Any] | None = None,
    query: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    content = (
        {"text/plain": {"schema": {"type": "string"}}}
        if schema is None
        else {"application/json": {"schema": schema}}
    )
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "ok", "content": content},
            "default": {"description": "an error, by its code", "content": error},
        },
    }
    if body is not None:
        operation["requestBody"] = {"content": body}
    if query is not None:
        operation["parameters"] = list(query)
    return operation
