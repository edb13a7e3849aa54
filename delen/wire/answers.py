"""Answers, previews and feedback on the wire."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from delen.core.guarantee import Feedback, GuaranteeStatus
from delen.core.plan import OperatingPoint, Preview
from delen.core.result import (
    AccuracyOutcome,
    EnergyOutcome,
    LatencyOutcome,
    Prediction,
    Receipt,
    Result,
)
from delen.wire.requests import from_milli, nearest_from_json, nearest_to_json, to_milli


def receipt_to_json(receipt: Receipt) -> dict[str, Any]:
    latency, accuracy, energy = receipt.latency, receipt.accuracy, receipt.energy
    return {
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
    }


def receipt_from_json(document: Mapping[str, Any]) -> Receipt:
    """What ``receipt_to_json`` wrote."""
    latency, accuracy, energy = (document[name] for name in ("latency_ms", "accuracy", "energy_mj"))
    return Receipt(
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
    )


def result_to_json(result: Result) -> dict[str, Any]:
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
        "receipt": receipt_to_json(result.receipt),
    }
    if result.probabilities is not None:
        document["probabilities"] = result.probabilities.tolist()
    return document


def result_from_json(document: Mapping[str, Any]) -> Result:
    """What ``result_to_json`` wrote. Fields that a newer daemon adds are let be."""
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
        receipt=receipt_from_json(document["receipt"]),
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
        "price_per_j": price_to_json(preview.price),
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
        price=price_from_json(document["price_per_j"]),
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


def price_to_json(price: float) -> float | None:
    """Accuracy per joule; None for a price without limit, which buys the least energy there is."""
    return price if math.isfinite(price) else None


def price_from_json(price: float | None) -> float:
    return math.inf if price is None else price
