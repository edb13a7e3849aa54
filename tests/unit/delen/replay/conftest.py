from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from delen.core.result import (
    AccuracyOutcome,
    EnergyOutcome,
    LatencyOutcome,
    Prediction,
    Receipt,
    Result,
)
from delen.replay.served import Served


@pytest.fixture
def model() -> Served:
    """Takes uint8 [2, 2], and has the classes cat, dog and 7."""
    return Served("m", "uint8", (2, 2), 3, ("cat", "dog", "7"), exits=4)


@pytest.fixture
def make_result() -> Callable[..., Result]:
    """An answer after 10 ms and 2 mJ from exit 1, with all its bounds kept or as told."""

    def make(index: int = 0, **changes: Any) -> Result:
        told = {
            "latency": 0.01,
            "latency_met": True,
            "expected": 0.8,
            "overall": 0.7,
            "accuracy_met": True,
            "energy": 0.002,
            "energy_met": True,
            "kind": "estimated",
            "exit": 1,
            **changes,
        }
        return Result(
            model="m",
            version="1",
            request_id="r",
            predictions=(Prediction(index, None, 0.9),),
            probabilities=None,
            exit=told["exit"],
            exits=4,
            reason="confident",
            receipt=Receipt(
                LatencyOutcome(None, told["latency"], 0.0, 0.01, told["latency_met"]),
                AccuracyOutcome(
                    None, told["expected"], told["overall"], None, told["accuracy_met"]
                ),
                EnergyOutcome(
                    None, told["energy"], 0.002, told["kind"], None, None, told["energy_met"]
                ),
            ),
            tenant="default",
            stream=None,
        )

    return make
