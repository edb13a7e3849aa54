from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from delen.errors import InvalidInput
from policies.fleet.api import Ceiling, Demand, LinkState, OperatingPoint, ServedModel, Standing
from tests.builders.fleet import MODEL, POINTS, demand, standing


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: OperatingPoint(0, 1.2, (0.01,)), "accuracy"),
        (lambda: OperatingPoint(0, nan, (0.01,)), "accuracy"),
        (lambda: OperatingPoint(0, 0.5, ()), "latencies"),
        (lambda: OperatingPoint(0, 0.5, (0.02, 0.01)), "latencies"),
        (lambda: OperatingPoint(0, 0.5, (inf,)), "latencies"),
        (lambda: OperatingPoint(0, 0.5, (0.01,), payload=-1.0), "payload"),
        (lambda: OperatingPoint(0, 0.5, (0.01,), energy=nan), "energy"),
        (lambda: OperatingPoint(-1, 0.5, (0.01,)), "exit"),
        (lambda: OperatingPoint(0, 0.5, (0.01,), size=(0, 32)), "size"),
        (lambda: ServedModel(MODEL, "a", ()), "points"),
        (lambda: ServedModel(MODEL, "a", POINTS, load=-1.0), "load"),
        (lambda: LinkState(-1.0), "bandwidth"),
        (lambda: LinkState(nan), "bandwidth"),
        (lambda: LinkState(1.0, inf), "delay"),
        (lambda: standing("near", nan), "said"),
        (lambda: standing("near", backlog=-0.1), "backlog"),
        (lambda: standing("near", slowdown=0.0), "slowdown"),
        (lambda: standing("near", price_per_joule=-1.0), "price_per_joule"),
        (lambda: demand("a", fps=0.0), "fps"),
        (lambda: demand("a", deadline=inf), "deadline"),
        (lambda: Demand("a", MODEL, 1.0, 1.0, {}, min_accuracy=2.0), "min_accuracy"),
    ],
)
def test_nonsense_is_refused_by_its_field(make: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.field == field


def test_a_ceiling_allows_what_is_neither_deeper_nor_larger() -> None:
    small = OperatingPoint(1, 0.5, (0.01,), size=(320, 320))
    large = OperatingPoint(0, 0.5, (0.01,), size=(640, 640))
    assert Ceiling(1).allows(small)
    assert not Ceiling(0).allows(small)
    assert Ceiling(None, (320, 320)).allows(small)
    assert not Ceiling(None, (320, 320)).allows(large)
    assert Ceiling(1, (320, 320)).allows(small)
    assert not Ceiling(1, (320, 320)).allows(large)


def test_a_link_takes_time_both_ways_and_nothing_passes_one_without_bandwidth() -> None:
    assert LinkState(1e6, 0.01).seconds(50e3) == pytest.approx(0.07)
    assert LinkState().seconds(50e3) == 0
    assert LinkState(0.0).seconds(1.0) == inf


def test_a_standing_finds_its_models() -> None:
    said = Standing("near", 0.0, (ServedModel(MODEL, "a", POINTS),))
    assert said.model(MODEL) is said.models[0]
    assert said.model("words") is None
