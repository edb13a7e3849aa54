from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.dispatch_cells import NANO_NAME, full_seconds, model_of
from benchmarks.isolation import (
    CALM_LOAD,
    FLOOD_LOAD,
    MOST_ACCURACY,
    MOST_VIOLATIONS,
    calm_app,
    floods,
    kept,
    kept_beside,
)
from benchmarks.standard_apps import make_trace

NANO = model_of(NANO_NAME)
FULL, POINTS = full_seconds(NANO), NANO.planner.points(NANO.costs())
CALM = calm_app(POINTS, CALM_LOAD / FULL)
DURATION = 100 * FULL / CALM_LOAD


FLOODS = {flood.title: flood for flood in floods(POINTS, FLOOD_LOAD / FULL)}


@pytest.mark.parametrize(
    "title",
    [
        "caps on latency",
        "floors",
        "priority 1, caps",
        "bursts, caps",
        "a new name each time, no bounds",
        "20 names, the calm app of weight 10",
    ],
)
def test_a_flood_does_no_harm_to_a_calm_app(title: str) -> None:
    alone = kept(NANO, make_trace([CALM], DURATION, 0), {}, 0)
    beside = kept_beside(NANO, CALM, FLOODS[title], DURATION, 0)
    assert beside.violations - alone.violations <= MOST_VIOLATIONS


def test_many_lasting_names_do_where_no_weight_is_set() -> None:
    flood = replace(FLOODS["20 names, the calm app of weight 1"], weight=None)
    assert kept_beside(NANO, CALM, flood, DURATION, 0).violations > 10 * MOST_VIOLATIONS


def test_shallower_answers_are_a_loss_of_accuracy_though_no_bound_is_broken() -> None:
    lost = {
        title: kept_beside(NANO, CALM, FLOODS[title], DURATION, 0).lost
        for title in ("impossible bounds", "20 names, the calm app of weight 1")
    }
    assert kept(NANO, make_trace([CALM], DURATION, 0), {}, 0).lost == pytest.approx(0, abs=0.5)
    assert lost["impossible bounds"] == pytest.approx(0, abs=0.5)
    assert lost["20 names, the calm app of weight 1"] > MOST_ACCURACY
