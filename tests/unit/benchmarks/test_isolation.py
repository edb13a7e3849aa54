from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.dispatch_cells import NANO_NAME, full_seconds, model_of
from benchmarks.isolation import (
    CALM_LOAD,
    FLOOD_LOAD,
    MOST,
    MOST_ACCURACY,
    calm_app,
    floods,
    harm,
    harm_beside,
)
from benchmarks.standard_apps import make_trace

NANO = model_of(NANO_NAME)
FULL, POINTS = full_seconds(NANO), NANO.planner.points(NANO.costs())
CALM = calm_app(POINTS, CALM_LOAD / FULL)
DURATION = 100 * FULL / CALM_LOAD
NOISE = 6.0
"""Two standard deviations of a difference of errors among so few answers."""


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
    alone = harm(NANO, make_trace([CALM], DURATION, 0), {}, 0)
    beside = harm_beside(NANO, CALM, FLOODS[title], DURATION, 0)
    assert beside.violations - alone.violations <= MOST
    assert beside.errors - alone.errors <= MOST_ACCURACY + NOISE


def test_many_lasting_names_do_where_no_weight_is_set() -> None:
    flood = replace(FLOODS["20 names, the calm app of weight 1"], weight=None)
    assert harm_beside(NANO, CALM, flood, DURATION, 0).violations > 10 * MOST
