"""The OpenAPI 3.1 description of ``/v1``, made from the same names that the views read."""

from __future__ import annotations

import re
from typing import Any

from api.openapi.power import POWER_SCHEMAS, PRICE, REASON, RECEIPT, power_paths
from api.openapi.schemas import (
    INTEGER,
    NUMBER,
    NUMBER_OR_NULL,
    TEXT,
    TEXT_OR_NULL,
    TRUTH,
    make_object,
    operation,
    reference,
)
from delen.core.bounds import HIGHEST_PRIORITY, LOWEST_PRIORITY
from delen.engine.inputs import BODY_TYPES
from delen.engine.inputs import TEXT as PLAIN_TEXT
from delen.errors import ERRORS_BY_CODE

_IN_PATH = re.compile(r"\{(\w+)\}")

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
    "tenant": TEXT,
    "stream": TEXT,
    "priority": {
        "type": "integer",
        "minimum": HIGHEST_PRIORITY,
        "maximum": LOWEST_PRIORITY,
        "description": "1 is served first; beside other tenants no more urgent than its tenant's",
    },
    "top_k": {"type": "integer", "minimum": 1},
    "on_infeasible": {"enum": ["reject", "best_effort"]},
    "probabilities": TRUTH,
}


_RESULT = make_object(
    {
        "model": TEXT,
        "version": TEXT,
        "request_id": TEXT,
        "tenant": TEXT,
        "stream": TEXT_OR_NULL,
        "predictions": {
            "type": "array",
            "items": make_object(
                {
                    "index": INTEGER,
                    "label": TEXT_OR_NULL,
                    "probability": NUMBER,
                }
            ),
        },
        "probabilities": {"type": "array", "items": NUMBER},
        "exit": INTEGER,
        "exits": INTEGER,
        "reason": REASON,
        "receipt": RECEIPT,
    },
    "model", "version", "request_id", "predictions", "exit", "exits", "reason", "receipt",
)  # fmt: skip

_ERROR = make_object(
    {
        "error": TEXT,
        "code": {"enum": sorted(ERRORS_BY_CODE)},
        "field": TEXT,
        "nearest": make_object(dict.fromkeys(_BOUNDS, NUMBER_OR_NULL)),
        "retry_after_s": NUMBER,
        "remedy": TEXT,
    },
    "error",
    "code",
)

_PLAN = make_object(
    {
        "model": TEXT,
        "feasible": TRUTH,
        "problem": TEXT_OR_NULL,
        "nearest": {"type": ["object", "null"]},
        "exit": INTEGER,
        "threshold": NUMBER_OR_NULL,
        "limited_by": {"enum": ["latency", "energy", "memory", "depth", "price"]},
        "latency_ms": NUMBER,
        "energy_mj": NUMBER_OR_NULL,
        "expected_energy_mj": NUMBER_OR_NULL,
        "accuracy": NUMBER_OR_NULL,
        "guarantee": NUMBER_OR_NULL,
        "price_per_j": PRICE,
        "pareto": {"type": "array", "items": {"type": "object"}},
    }
)


_GUARANTEE = make_object(
    {
        "holds": TRUTH,
        "source": {"enum": ["labels", "agreement", None]},
        "samples": INTEGER,
        "errors": INTEGER,
        "promised": NUMBER_OR_NULL,
        "evidence": NUMBER,
        "delta": NUMBER,
    }
)
_LABELS = make_object(
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
_FEEDBACK = make_object(
    {
        "accepted": INTEGER,
        "wrong": INTEGER,
        "repeated": INTEGER,
        "unknown": {"type": "array", "items": TEXT},
        "guarantee": _GUARANTEE,
    },
    "accepted", "unknown", "guarantee",
)  # fmt: skip


def document(version: str) -> dict[str, Any]:
    """The whole description, as ``GET /openapi.json`` gives it."""
    infer_body = {
        "application/json": {
            "schema": make_object(
                {"input": {"type": ["array", "string"]}, **_BOUNDS, **_OPTIONS},
                "input",
                closed=True,
            )
        },
        **{
            media_type: {"schema": {"type": "string", "format": "binary"}}
            for media_type in BODY_TYPES
            if media_type != PLAIN_TEXT
        },
        PLAIN_TEXT: {"schema": TEXT},
    }
    planned = {**_BOUNDS, "tenant": _OPTIONS["tenant"]}
    plan_body = {"application/json": {"schema": make_object(planned, closed=True)}}
    query = {
        name: {"name": name, "in": "query", "schema": schema}
        for name, schema in {**_BOUNDS, **_OPTIONS}.items()
    }
    result, plan = reference("Result"), reference("Plan")
    anything = {"type": "object"}

    def infer() -> dict[str, Any]:
        summary = "Answer an input under its bounds"
        return {"post": operation(summary, result, body=infer_body, query=list(query.values()))}

    def make_plan() -> dict[str, Any]:
        summary = "What bounds would buy now"
        parameters = [query[name] for name in planned]
        return {"post": operation(summary, plan, body=plan_body, query=parameters)}

    def give_feedback() -> dict[str, Any]:
        summary = "Post the labels of past answers"
        body = {"application/json": {"schema": _LABELS}}
        return {"post": operation(summary, reference("Feedback"), body=body)}

    paths: dict[str, Any] = {
        "/v1/infer": infer(),
        "/v1/models/{model}/infer": infer(),
        "/v1/plan": make_plan(),
        "/v1/models/{model}/plan": make_plan(),
        "/v1/feedback": give_feedback(),
        "/v1/models/{model}/feedback": give_feedback(),
        "/v1/models": {"get": operation("The models", anything)},
        "/v1/models/{model}": {"get": operation("One model", anything)},
        "/v1/models/{model}/load": {"post": operation("Load a model", anything)},
        "/v1/models/{model}/unload": {"post": operation("Unload a model", anything)},
        **power_paths(),
        "/healthz": {"get": operation("The process lives", anything)},
        "/readyz": {"get": operation("Requests are taken", anything)},
        "/metrics": {"get": operation("Prometheus metrics", None)},
        "/openapi.json": {"get": operation("This description", anything)},
    }
    for path, operations in paths.items():
        for name in _IN_PATH.findall(path):
            for described in operations.values():
                described["parameters"] = [
                    {"name": name, "in": "path", "required": True, "schema": TEXT},
                    *described.get("parameters", []),
                ]
    return {
        "openapi": "3.1.0",
        "info": {"title": "delen", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": {
                "Result": _RESULT,
                "Error": _ERROR,
                "Plan": _PLAN,
                "Feedback": _FEEDBACK,
                **POWER_SCHEMAS,
            }
        },
    }
