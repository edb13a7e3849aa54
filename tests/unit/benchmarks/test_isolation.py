from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.dispatch_cells import NANO_NAME, full_seconds, model_of
from benchmarks.isolation import (
    CALM_LOAD,
    FLOOD_LOAD,
    MOST,
    calm_app,
    floods,
    violations,
    violations_beside,
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
    alone = violations(NANO, make_trace([CALM], DURATION, 0), {}, 0)
    assert violations_beside(NANO, CALM, FLOODS[title], DURATION, 0) - alone <= MOST


def test_many_lasting_names_do_where_no_weight_is_set() -> None:
    flood = replace(FLOODS["20 names, the calm app of weight 1"], weight=None)
    assert violations_beside(NANO, CALM, flood, DURATION, 0) > 10 * MOST
