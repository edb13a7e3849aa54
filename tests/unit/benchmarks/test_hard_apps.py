from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.dispatch_cells import (
    BATCHING,
    NANO_NAME,
    TAILED,
    Cell,
    Size,
    full_seconds,
    model_of,
    trace_of,
)
from benchmarks.hard_apps import HARD_KINDS, twitter_like

MODEL = model_of(NANO_NAME)
FULL = full_seconds(MODEL)
SIZE = Size(2000, 1.0)


@pytest.mark.parametrize("tenants", [1, 3, 10])
@pytest.mark.parametrize("kind", HARD_KINDS)
def test_a_hard_cell_has_the_load_of_any_other(kind: str, tenants: int) -> None:
    trace = trace_of(Cell(NANO_NAME, kind, tenants, 0.5), MODEL, SIZE, 0)
    assert len(trace) * FULL / (2000 * FULL / 0.5) == pytest.approx(0.5, rel=0.15)
    assert len(trace.tenants) == tenants


def test_cameras_fire_together() -> None:
    trace = trace_of(Cell(NANO_NAME, "aligned", 3, 0.5), MODEL, SIZE, 0)
    together = Counter(round(arrival.time, 6) for arrival in trace)
    assert set(together.values()) == {9}


def test_exact_deadlines_leave_less_time_than_the_quantile_of_plans() -> None:
    trace = trace_of(Cell(NANO_NAME, "exact", 1, 0.5), MODEL, SIZE, 0)
    caps = sorted({arrival.bounds.max_latency or 0.0 for arrival in trace})
    points = [point for point in MODEL.planner.points(MODEL.costs()) if not point.dominated]
    assert all(cap < point.latency for cap, point in zip(caps, points, strict=True))


@pytest.mark.parametrize("tenants", [1, 3])
def test_who_has_little_time_has_the_lowest_priority(tenants: int) -> None:
    trace = trace_of(Cell(NANO_NAME, "inverted", tenants, 0.5), MODEL, SIZE, 0)
    caps = {(arrival.priority or 5, arrival.bounds.max_latency or 0.0) for arrival in trace}
    (urgent, loose), (polite, tight) = sorted(caps)
    assert urgent < polite and tight < loose


def test_a_flash_crowd_comes_in_the_middle() -> None:
    trace = trace_of(Cell(NANO_NAME, "flash", 3, 0.5), MODEL, SIZE, 0)
    end = 2000 * FULL / 0.5
    crowd = sum(0.45 * end <= arrival.time < 0.55 * end for arrival in trace)
    assert crowd / len(trace) == pytest.approx(10 / 19, abs=0.05)


def test_a_twitter_like_rate_has_spikes_and_is_the_same_for_a_seed() -> None:
    rate = twitter_like(1)
    assert rate == twitter_like(1) != twitter_like(2)
    assert max(rate) > 2 * sum(rate) / len(rate)


def test_batches_pay_on_one_device_and_runs_vary_on_the_other() -> None:
    costs, usual = model_of(BATCHING).costs(), MODEL.costs()
    assert costs.typical(0, 3, 1) == pytest.approx(usual.typical(0, 3, 1))
    assert costs.typical(0, 3, 8) == pytest.approx(2.4 * usual.typical(0, 3, 1))
    tailed = model_of(TAILED).costs()
    assert tailed.latency(0, 3, 1) == pytest.approx(3 * tailed.typical(0, 3, 1))
