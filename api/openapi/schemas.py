"""Pieces of JSON Schema that the OpenAPI description is put together from."""

from __future__ import annotations

from typing import Any, Final

NUMBER: Final = {"type": "number"}
NUMBER_OR_NULL: Final = {"type": ["number", "null"]}
INTEGER: Final = {"type": "integer"}
TEXT: Final = {"type": "string"}
TEXT_OR_NULL: Final = {"type": ["string", "null"]}
TRUTH: Final = {"type": "boolean"}


def make_object(properties: dict[str, Any], *required: str, closed: bool = False) -> dict[str, Any]:
    """An object with ``properties``; ``closed`` where it may have no others."""
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    if closed:
        schema["additionalProperties"] = False
    return schema


def whole_object(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with all of ``properties``."""
    return make_object(properties, *properties)


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [{"type": "null"}, schema]}


def reference(name: str) -> dict[str, Any]:
    """The schema ``name`` among the description's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def operation(
    summary: str,
    schema: dict[str, Any] | None,
    body: dict[str, Any] | None = None,
    query: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """One method of a path that answers with ``schema``, None for plain text."""
    content = (
        {"text/plain": {"schema": TEXT}}
        if schema is None
        else {"application/json": {"schema": schema}}
    )
    error = {"application/json": {"schema": reference("Error")}}
    described: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "ok", "content": content},
            "default": {"description": "an error, by its code", "content": error},
        },
    }
    if body is not None:
        described["requestBody"] = {"content": body}
    if query is not None:
        described["parameters"] = list(query)
    return described
