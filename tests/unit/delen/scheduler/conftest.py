"""Tasks and view with everything that is not under test left harmless."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from delen.bundle.calibration import Calibration
from delen.core.dispatch import Task
from delen.profile.cost_model import CostModel
from delen.scheduler.model_view import ScheduledModel


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """Makes new tasks of model ``m``, which wait for segment 0 and run to exit 2."""
    ids = count()

    def make(**given: Any) -> Task:
        known = {"id": next(ids), "model": "m", "tenant": "t", "arrived": 0.0, "segment": 0}
        return Task(**{**known, "last": 2, **given})

    return make


@pytest.fixture
def view(
    make_costs: Callable[..., CostModel], make_calibration: Callable[..., Calibration]
) -> ScheduledModel:
    """Three segments of 10 ms; a batch of n takes (1 + n) / 2 times as long, and at most 8 run."""
    costs = make_costs(0.01, 0.01, 0.01, growth=0.5)
    return ScheduledModel(costs, make_calibration(0.6, 0.7, 0.8, samples=2000), 8)
