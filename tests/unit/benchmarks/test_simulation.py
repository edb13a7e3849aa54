from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.dispatch_cells import NANO_NAME, model_of
from benchmarks.simulation import play, write_deep_trace, write_trace
from delen.simulate.trace import read_trace


def test_a_trace_has_the_load_that_it_is_made_for_and_can_be_played(tmp_path: Path) -> None:
    model, file = model_of(NANO_NAME), tmp_path / "trace.csv"
    write_trace(file, 0.5, model, seed=0, requests=400)
    trace = read_trace(file)
    full = sum(costs[1].latency.p50 for costs in model.profile.segments)
    assert len(trace.tenants) == 3
    assert len(trace) * full / trace.arrivals[-1].time == pytest.approx(0.5, rel=0.15)
    assert play(file, model) > 0


def test_deep_requests_have_the_load_and_no_floor(tmp_path: Path) -> None:
    model, file = model_of(NANO_NAME), tmp_path / "deep.csv"
    write_deep_trace(file, 0.5, model, seed=0, requests=200)
    trace = read_trace(file)
    full = sum(costs[1].latency.p50 for costs in model.profile.segments)
    assert len(trace) * full / trace.arrivals[-1].time == pytest.approx(0.5, rel=0.2)
    assert all(arrival.bounds.min_accuracy is None for arrival in trace)
    assert play(file, model, "fifo") > 0
