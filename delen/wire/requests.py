"""Where values and units cross a process boundary: ms, mJ and JSON outside, seconds, joules and
dataclasses inside. Here what a request says, and errors; answers are in ``delen.wire.answers`` and
power in ``delen.wire.power``. The API writes what the client reads there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from delen.core.bounds import Bounds, Options, check_cap, check_fraction
from delen.core.strict_reader import Fields
from delen.errors import (
    ERRORS_BY_CODE,
    BudgetExhausted,
    DelenError,
    InfeasibleBound,
    InvalidInput,
    MissingExtra,
    Nearest,
    Overloaded,
    PowerError,
    UnknownField,
)

BOUND_FIELDS = ("max_latency_ms", "min_accuracy", "max_energy_mj")
OPTION_FIELDS = ("tenant", "stream", "priority", "top_k", "on_infeasible", "probabilities")
_NUMBERS = frozenset((*BOUND_FIELDS, "priority", "top_k", "seconds"))
_DEFAULTS = Options()


def to_milli(value: float | None) -> float | None:
    """Seconds to ms, or joules to mJ; None stays unknown."""
    return None if value is None else 1e3 * value


def from_milli(value: float | None) -> float | None:
    return None if value is None else value / 1e3


def parse_bounds(fields: Mapping[str, Any]) -> Bounds:
    """Bounds from their wire names; null means not set. InvalidInput names the field."""
    latency, energy = fields.get("max_latency_ms"), fields.get("max_energy_mj")
    floor = fields.get("min_accuracy")
    return Bounds(
        max_latency=None
        if latency is None
        else check_cap(latency, "max_latency_ms", "milliseconds") / 1e3,
        min_accuracy=None if floor is None else check_fraction(floor, "min_accuracy"),
        max_energy=None
        if energy is None
        else check_cap(energy, "max_energy_mj", "millijoules") / 1e3,
    )


def parse_options(fields: Mapping[str, Any]) -> Options:
    given = {name: fields[name] for name in OPTION_FIELDS if fields.get(name) is not None}
    return Options(**given)


def check_known(fields: Mapping[str, Any], *known: str) -> None:
    """UnknownField, with the list of those that are known, for any other key."""
    for name in fields:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise UnknownField(f"unknown field {name!r}; known: {listed}", name)


def from_query(arguments: Mapping[str, str]) -> dict[str, Any]:
    """Query arguments with their numbers and truth values read; InvalidInput names a bad one."""
    return {name: _read_text(name, text) for name, text in arguments.items()}


def _read_text(name: str, text: str) -> Any:
    if name in _NUMBERS:
        try:
            return int(text)
        except ValueError:
            pass
        try:
            return float(text)
        except ValueError:
            raise InvalidInput(f"{name} must be a number, not {text!r}", name) from None
    if name == "probabilities":
        return {"true": True, "false": False}.get(text, text)
    return text


def request_fields(bounds: Bounds, options: Options | None = None) -> dict[str, Any]:
    """The wire fields of a request; what is not set is left out."""
    fields: dict[str, Any] = {
        "max_latency_ms": to_milli(bounds.max_latency),
        "min_accuracy": bounds.min_accuracy,
        "max_energy_mj": to_milli(bounds.max_energy),
    }
    if options is not None:
        for name in OPTION_FIELDS:
            value = getattr(options, name)
            fields[name] = None if value == getattr(_DEFAULTS, name) else value
    return {name: value for name, value in fields.items() if value is not None}


def nearest_to_json(nearest: Nearest) -> dict[str, float | None]:
    return {
        "max_latency_ms": to_milli(nearest.max_latency),
        "min_accuracy": nearest.min_accuracy,
        "max_energy_mj": to_milli(nearest.max_energy),
    }


def nearest_from_json(document: Mapping[str, Any]) -> Nearest:
    return Nearest(
        from_milli(document.get("max_latency_ms")),
        document.get("min_accuracy"),
        from_milli(document.get("max_energy_mj")),
    )


def error_to_json(error: DelenError) -> dict[str, Any]:
    document: dict[str, Any] = {"error": str(error), "code": error.code}
    if isinstance(error, InvalidInput) and error.field is not None:
        document["field"] = error.field
    if isinstance(error, InfeasibleBound):
        document["nearest"] = nearest_to_json(error.nearest)
    if isinstance(error, (BudgetExhausted, Overloaded)):
        document["retry_after_s"] = error.retry_after
    if isinstance(error, PowerError) and error.remedy is not None:
        document["remedy"] = error.remedy
    return document


def error_from_json(document: object, status: int) -> DelenError:
    """The exception that the daemon raised, or a DelenError that quotes what it sent."""
    if not isinstance(document, Mapping) or not isinstance(document.get("error"), str):
        return DelenError(f"the daemon answered with status {status} and no error sentence")
    message = document["error"]
    kind = ERRORS_BY_CODE.get(str(document.get("code")), DelenError)
    if issubclass(kind, InfeasibleBound):
        return kind(message, nearest_from_json(document.get("nearest") or {}))
    if issubclass(kind, InvalidInput):
        return kind(message, document.get("field"))
    if issubclass(kind, (BudgetExhausted, Overloaded)):
        return kind(message, Fields(document, "the error", DelenError).number("retry_after_s"))
    if issubclass(kind, PowerError):
        return kind(message, document.get("remedy"))
    return DelenError(message) if issubclass(kind, MissingExtra) else kind(message)
