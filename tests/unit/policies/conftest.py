"""What exit policies see, with everything not under test left harmless."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from delen.core.bounds import Bounds
from delen.core.frontier import Choice, Frontier
from delen.core.plan import ExitView, Plan


@pytest.fixture(scope="session")
def make_view() -> Callable[..., ExitView]:
    """Makes a view at exit 1 of 4, no bounds set; ``threshold`` and ``last`` are the plan's."""

    def make(
        *,
        max_latency: float | None = None,
        min_accuracy: float | None = None,
        max_energy: float | None = None,
        threshold: float | None = None,
        last: int = 3,
        **seen: Any,
    ) -> ExitView:
        frontier = Frontier((Choice(last, threshold, 0.2, 0.7),))
        plan = Plan(last, threshold, 0.04, 0.2, 0.2, 0.7, None, "depth", (), frontier)
        view: dict[str, Any] = {
            "exit": 1,
            "exits": 4,
            "confidence": 0.5,
            "accuracy": 0.6,
            "macs": 2_000_000_000,
            "elapsed": 0.010,
            "energy": 0.1,
            "next_exit": 2,
            "time_to_next": 0.010,
            "energy_at_next": 0.15,
        }
        bounds = Bounds(max_latency=max_latency, min_accuracy=min_accuracy, max_energy=max_energy)
        return ExitView(**{**view, **seen}, bounds=bounds, plan=plan)

    return make
