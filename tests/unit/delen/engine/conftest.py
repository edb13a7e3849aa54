from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from delen.bundle.calibration import Calibration
from delen.bundle.manifest import load_bundle
from delen.profile.cost_model import CostModel
from tests.unit.delen.engine.harness import Clock, ExecutorHarness


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    modules = "admission", "batch_feed", "executor", "hung_batches", "informing", "jobs"
    modules += "job_ends", "lane_worker", "runner", "runtime"
    for module in modules:
        monkeypatch.setattr(f"delen.engine.{module}.time", clock)
    return clock


@pytest.fixture
def make_harness(
    tiny_bundle: Path,
    make_calibration: Callable[..., Calibration],
    make_costs: Callable[..., CostModel],
    clock: Clock,
) -> Iterator[Callable[..., ExecutorHarness]]:
    """Makes harnesses with exits of 10 ms and 40 mJ each, right in 60, 80 and 90 of 100 cases, and
    the dispatch policy that is given; ``how`` is as for ``make_profile``."""
    harnesses: list[ExecutorHarness] = []

    def make(dispatch: Any = None, lanes: int = 1, **how: Any) -> ExecutorHarness:
        costs = make_costs(0.01, 0.01, 0.01, watts=4.0, growth=0.0, lanes=lanes, **how)
        calibration = make_calibration(0.6, 0.8, 0.9)
        harness = ExecutorHarness(
            load_bundle(tiny_bundle), calibration, costs, clock, dispatch, lanes
        )
        harnesses.append(harness)
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.executor.close()


@pytest.fixture
def harness(make_harness: Callable[..., ExecutorHarness]) -> ExecutorHarness:
    return make_harness()
