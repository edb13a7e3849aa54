"""Answers and works as the engine reports them."""

from __future__ import annotations

from delen.core.result import (
    AccuracyOutcome,
    EnergyOutcome,
    LatencyOutcome,
    Prediction,
    Receipt,
    Result,
)
from delen.core.work import Share, Work


def answer(
    request: str, joules: float | None = 0.5, bound: float | None = None, **own: str
) -> Result:
    return Result(
        model="tiny",
        version="1",
        request_id=request,
        predictions=(Prediction(0, None, 1.0),),
        probabilities=None,
        exit=1,
        exits=3,
        reason="confident",
        receipt=Receipt(
            LatencyOutcome(None, 0.01, 0.0, 0.01, None),
            AccuracyOutcome(None, None, None, None, None),
            EnergyOutcome(
                bound,
                joules,
                joules,
                "unknown" if joules is None else "estimated",
                None if joules is None else "model",
                None if joules is None else "processor",
                None if bound is None else True,
            ),
        ),
        tenant=own.get("tenant", "default"),
        stream=None,
    )


def work(*requests: str, tenant: str = "default") -> Work:
    shares = tuple(Share(request, tenant) for request in requests)
    return Work("tiny", 0, max(1, len(requests)), 0.0, 0.1, 0.5, shares)
