from __future__ import annotations

from dataclasses import replace

import pytest

from api.metrics.requests import Metrics
from delen.core.result import Prediction, Result
from delen.core.work import Work
from delen.wire.figures import Outcomes
from tests.unit.api.conftest import RECEIPT

RESULT = Result(
    model="m",
    version="1",
    request_id="a-1",
    predictions=(Prediction(1, None, 0.9),),
    probabilities=None,
    exit=0,
    exits=3,
    reason="confident",
    receipt=RECEIPT,
    tenant="t",
    stream=None,
)
WORK = Work("m", 0, 1, 0.0, 0.5, None, ())


def read(metrics: Metrics) -> dict[str, str]:
    lines = metrics.exposition({"m"}).decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_an_answer_counts_from_when_it_leaves() -> None:
    metrics = Metrics()
    name = 'delen_answers_total{exit="0",model="m",reason="confident",tenant="t"}'
    metrics.answered(RESULT)
    assert read(metrics)[name] == "1.0"
    metrics.ran(WORK)
    metrics.answered(replace(RESULT, request_id="a-2"))
    metrics.ran(WORK)
    counted = read(metrics)
    assert counted[name] == "2.0"
    assert counted['delen_latency_seconds_count{model="m"}'] == "2.0"


def test_the_counts_are_the_same_however_often_they_are_read() -> None:
    often, once = Metrics(), Metrics()
    for number in range(100):
        latency = replace(RECEIPT.latency, value=0.0004 * number)
        result = replace(RESULT, receipt=replace(RECEIPT, latency=latency), exit=number % 3)
        work = Work("m", number % 3, 1 + number % 70, 0.0, 0.25, None, ())
        for metrics in (often, once):
            metrics.answered(result)
            metrics.ran(work)
        read(often)
    counted, others = read(once), read(often)
    assert counted == others
    assert counted['delen_batch_size_bucket{le="+Inf",model="m"}'] == "100.0"
    assert counted['delen_batch_size_bucket{le="64.0",model="m"}'] == "94.0"
    assert counted['delen_latency_seconds_bucket{le="0.002",model="m"}'] == "6.0"
    assert counted['delen_segment_seconds_total{model="m",segment="1"}'] == "8.25"


def test_bounds_are_counted_by_outcome_app_and_by_how_much() -> None:
    metrics = Metrics()
    kept = replace(RECEIPT.latency, bound=0.02, value=0.01, met=True)
    missed = replace(RECEIPT.latency, bound=0.02, value=0.023, met=False)
    floor = replace(RECEIPT.accuracy, bound=0.85, met=True)
    unknown = replace(RECEIPT.energy, bound=0.1, value=None, met=None)
    metrics.answered(replace(RESULT, receipt=replace(RECEIPT, latency=kept, accuracy=floor)))
    metrics.answered(replace(RESULT, receipt=replace(RECEIPT, latency=missed, energy=unknown)))
    counted = read(metrics)
    labels = 'bound="latency",model="m",tenant="t"'
    assert counted[f"delen_bounds_kept_total{{{labels}}}"] == "1.0"
    assert counted[f"delen_bounds_missed_total{{{labels}}}"] == "1.0"
    over = "delen_latency_over_bound_seconds_bucket"
    assert counted[f'{over}{{le="-0.01",model="m"}}'] == "1.0"
    assert counted[f'{over}{{le="0.0",model="m"}}'] == "1.0"
    assert counted[f'{over}{{le="0.005",model="m"}}'] == "2.0"
    assert counted['delen_accuracy_over_floor_bucket{le="0.02",model="m"}'] == "0.0"
    assert counted['delen_accuracy_over_floor_bucket{le="0.1",model="m"}'] == "1.0"
    floors = 'bound="accuracy",model="m",tenant="t"'
    assert counted[f"delen_bounds_kept_total{{{floors}}}"] == "1.0"
    assert counted[f"delen_bounds_missed_total{{{floors}}}"] == "0.0"
    assert not any('bound="energy"' in name or "energy_over" in name for name in counted)
    outcomes = metrics.outcomes("m")
    assert outcomes["latency"] == Outcomes(1, 1) and outcomes["energy"] == Outcomes(0, 0)
    assert metrics.outcomes("other")["latency"] == Outcomes(0, 0)


def test_accuracy_that_answers_lose_to_load_is_below_that_of_their_plans() -> None:
    metrics = Metrics()
    for expected in (0.7, 0.9, None):
        accuracy = replace(RECEIPT.accuracy, overall=0.85, expected=expected)
        metrics.answered(replace(RESULT, receipt=replace(RECEIPT, accuracy=accuracy)))
    counted = read(metrics)
    assert float(counted['delen_planned_accuracy_total{model="m"}']) == pytest.approx(1.7)
    assert float(counted['delen_expected_accuracy_total{model="m"}']) == pytest.approx(1.6)
    assert metrics.recent("m", 3).over_plan == pytest.approx(-0.05)


def test_recent_answers_are_summed_up_and_what_is_not_known_is_none() -> None:
    metrics = Metrics()
    for number in range(100):
        latency = replace(RECEIPT.latency, value=0.001 * (number + 1), queue=0.0, bound=0.05)
        result = replace(RESULT, exit=number % 2, receipt=replace(RECEIPT, latency=latency))
        metrics.answered(result)
    recent = metrics.recent("m", 3)
    assert (recent.answers, recent.exits, recent.missed) == (100, (50, 50, 0), 50)
    assert recent.latency is not None and recent.latency.p95 == pytest.approx(0.096)
    assert recent.of_bound is not None and recent.of_bound.p99 == pytest.approx(2.0)
    nothing = metrics.recent("other", 3)
    assert (nothing.answers, nothing.exits) == (0, (0, 0, 0))
    assert nothing.latency is nothing.queue is nothing.of_bound is nothing.over_plan is None


def test_the_times_at_which_series_began_are_not_served() -> None:
    metrics = Metrics()
    metrics.refused("overloaded")
    counted = read(metrics)
    assert counted['delen_errors_total{code="overloaded"}'] == "1.0"
    assert not any("_created" in name for name in counted)
