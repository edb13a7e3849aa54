"""The one place where values and units cross a process boundary: ms, mJ and JSON outside,
seconds, joules and dataclasses inside. The API writes what the client reads here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from delen.bounds import Bounds, Options, check_cap, check_fraction
from delen.errors import (
    ERRORS_BY_CODE,
    BudgetExhausted,
    DelenError,
    InfeasibleBound,
    InvalidInput,
    MissingExtra,
    Nearest,
    Overloaded,
    UnknownField,
)
from delen.fields import Fields
from delen.guarantee import Feedback, GuaranteeStatus
from delen.plan import OperatingPoint, Preview
from delen.result import (
    AccuracyOutcome,
    EnergyOutcome,
    LatencyOutcome,
    Prediction,
    Receipt,
    Result,
)

BOUND_FIELDS = ("max_latency_ms", "min_accuracy", "max_energy_mj")
OPTION_FIELDS = ("tenant", "stream", "priority", "top_k", "on_infeasible", "probabilities")
_NUMBERS = frozenset((*BOUND_FIELDS, "priority", "top_k"))
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
            raise UnknownField(f"unknown field {name!r}; known: {', '.join(known)}", name)


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


def result_to_json(result: Result) -> dict[str, Any]:
    receipt = result.receipt
    latency, accuracy, energy = receipt.latency, receipt.accuracy, receipt.energy
    document: dict[str, Any] = {
        "model": result.model,
        "version": result.version,
        "request_id": result.request_id,
        "tenant": result.tenant,
        "stream": result.stream,
        "predictions": [
            {"index": p.index, "label": p.label, "probability": p.probability}
            for p in result.predictions
        ],
        "exit": result.exit,
        "exits": result.exits,
        "reason": result.reason,
        "receipt": {
            "met": receipt.met,
            "latency_ms": {
                "bound": to_milli(latency.bound),
                "value": 1e3 * latency.value,
                "queue": 1e3 * latency.queue,
                "predicted": 1e3 * latency.predicted,
                "met": latency.met,
            },
            "accuracy": {
                "bound": accuracy.bound,
                "expected": accuracy.expected,
                "overall": accuracy.overall,
                "guarantee": accuracy.guarantee,
                "met": accuracy.met,
            },
            "energy_mj": {
                "bound": to_milli(energy.bound),
                "value": to_milli(energy.value),
                "predicted": to_milli(energy.predicted),
                "kind": energy.kind,
                "source": energy.source,
                "scope": energy.scope,
                "met": energy.met,
            },
        },
    }
    if result.probabilities is not None:
        document["probabilities"] = result.probabilities.tolist()
    return document


def result_from_json(document: Mapping[str, Any]) -> Result:
    """What ``result_to_json`` wrote. Fields that a newer daemon adds are let be."""
    receipt = document["receipt"]
    latency, accuracy, energy = receipt["latency_ms"], receipt["accuracy"], receipt["energy_mj"]
    probabilities = document.get("probabilities")
    return Result(
        model=document["model"],
        version=document["version"],
        request_id=document["request_id"],
        predictions=tuple(
            Prediction(p["index"], p["label"], p["probability"]) for p in document["predictions"]
        ),
        probabilities=None if probabilities is None else np.asarray(probabilities, np.float32),
        exit=document["exit"],
        exits=document["exits"],
        reason=document["reason"],
        receipt=Receipt(
            LatencyOutcome(
                bound=from_milli(latency["bound"]),
                value=latency["value"] / 1e3,
                queue=latency["queue"] / 1e3,
                predicted=latency["predicted"] / 1e3,
                met=latency["met"],
            ),
            AccuracyOutcome(
                bound=accuracy["bound"],
                expected=accuracy["expected"],
                overall=accuracy["overall"],
                guarantee=accuracy["guarantee"],
                met=accuracy["met"],
            ),
            EnergyOutcome(
                bound=from_milli(energy["bound"]),
                value=from_milli(energy["value"]),
                predicted=from_milli(energy["predicted"]),
                kind=energy["kind"],
                source=energy["source"],
                scope=energy["scope"],
                met=energy["met"],
            ),
        ),
        tenant=document["tenant"],
        stream=document["stream"],
    )


def preview_to_json(preview: Preview) -> dict[str, Any]:
    return {
        "model": preview.model,
        "feasible": preview.feasible,
        "problem": preview.problem,
        "nearest": None if preview.nearest is None else nearest_to_json(preview.nearest),
        "exit": preview.exit,
        "threshold": preview.threshold,
        "limited_by": preview.limited_by,
        "latency_ms": 1e3 * preview.latency,
        "energy_mj": to_milli(preview.energy),
        "expected_energy_mj": to_milli(preview.expected_energy),
        "accuracy": preview.accuracy,
        "guarantee": preview.guarantee,
        "pareto": [
            {
                "exit": point.exit,
                "accuracy": point.accuracy,
                "latency_ms": 1e3 * point.latency,
                "energy_mj": to_milli(point.energy),
                "dominated": point.dominated,
            }
            for point in preview.points
        ],
    }


def preview_from_json(document: Mapping[str, Any]) -> Preview:
    """What ``preview_to_json`` wrote."""
    nearest = document["nearest"]
    return Preview(
        model=document["model"],
        feasible=document["feasible"],
        problem=document["problem"],
        nearest=None if nearest is None else nearest_from_json(nearest),
        exit=document["exit"],
        threshold=document["threshold"],
        limited_by=document["limited_by"],
        latency=document["latency_ms"] / 1e3,
        energy=from_milli(document["energy_mj"]),
        expected_energy=from_milli(document["expected_energy_mj"]),
        accuracy=document["accuracy"],
        guarantee=document["guarantee"],
        points=tuple(
            OperatingPoint(
                exit=point["exit"],
                accuracy=point["accuracy"],
                latency=point["latency_ms"] / 1e3,
                energy=from_milli(point["energy_mj"]),
                dominated=point["dominated"],
            )
            for point in document["pareto"]
        ),
    )


def guarantee_to_json(status: GuaranteeStatus) -> dict[str, Any]:
    return asdict(status)


def feedback_to_json(feedback: Feedback) -> dict[str, Any]:
    return {
        "accepted": feedback.accepted,
        "wrong": feedback.wrong,
        "repeated": feedback.repeated,
        "unknown": list(feedback.unknown),
        "guarantee": guarantee_to_json(feedback.guarantee),
    }


def feedback_from_json(document: Mapping[str, Any]) -> Feedback:
    """What ``feedback_to_json`` wrote. Fields that a newer daemon adds are let be."""
    status = document["guarantee"]
    return Feedback(
        accepted=document["accepted"],
        wrong=document["wrong"],
        repeated=document["repeated"],
        unknown=tuple(document["unknown"]),
        guarantee=GuaranteeStatus(
            **{field.name: status[field.name] for field in fields(GuaranteeStatus)}
        ),
    )


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
    return DelenError(message) if issubclass(kind, MissingExtra) else kind(message)
