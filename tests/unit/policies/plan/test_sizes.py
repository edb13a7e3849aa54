from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds
from delen.core.plan import OperatingPoint, Plan
from delen.core.variant import Size, format_size, model_of, size_of, variant_name
from delen.profile.cost_model import CostModel
from policies.plan.planner import Planner, PlannerSettings
from policies.plan.sizes import SizeChoice, level_of_each, pareto

LARGE, SMALL = (32, 32), (16, 16)
JOULES = {LARGE: 0.02, SMALL: 0.005}
SECONDS = {LARGE: 0.010, SMALL: 0.003}
ACCURACIES = {LARGE: (0.7, 0.8, 0.9), SMALL: (0.6, 0.75, 0.82)}

MakePlans = Callable[..., list[Plan]]


@pytest.fixture(scope="module")
def plan_both(
    make_calibration: Callable[..., Calibration], make_costs: Callable[..., CostModel]
) -> MakePlans:
    """The plans for bounds at a large and a small size."""
    sizes = [
        (
            Planner(make_calibration(*ACCURACIES[size]), PlannerSettings(), size=size, sizes=2),
            make_costs(*(SECONDS[size],) * 3, energy=(JOULES[size],) * 3),
        )
        for size in (LARGE, SMALL)
    ]

    def plan(bounds: Bounds, delay: float = 0.0, price: float = 0.0) -> list[Plan]:
        return [planner.plan(bounds, costs, delay, price=price) for planner, costs in sizes]

    return plan


def choose(plans: list[Plan], bounds: Bounds, is_crowded: bool = False) -> Plan:
    costs = [plan.expected_energy or 0.0 for plan in plans]
    return SizeChoice().best(plans, costs, bounds, True, is_crowded)


def test_caps_buy_the_most_accurate_answer_of_any_size(plan_both: MakePlans) -> None:
    for cap, size, exit in ((0.5, LARGE, 2), (0.016, SMALL, 2), (0.0125, SMALL, 2)):
        bounds = Bounds(max_latency=cap)
        chosen = choose(plan_both(bounds), bounds)
        assert (chosen.size, chosen.exit, chosen.infeasible) == (size, exit, None), cap
    assert chosen.limited_by == "latency"


def test_a_floor_is_kept_at_least_cost_and_no_bound_keeps_the_size(plan_both: MakePlans) -> None:
    low, high = Bounds(min_accuracy=0.7), Bounds(min_accuracy=0.85)
    assert choose(plan_both(low), low).size == SMALL
    assert choose(plan_both(high), high).size == LARGE
    assert choose(plan_both(Bounds()), Bounds()).size == LARGE


def test_while_much_waits_the_own_size_is_kept_if_it_keeps_the_bounds(
    plan_both: MakePlans,
) -> None:
    for bounds, size in (
        (Bounds(min_accuracy=0.7), LARGE),
        (Bounds(max_latency=0.02), LARGE),
        (Bounds(max_latency=0.009), SMALL),
    ):
        assert choose(plan_both(bounds), bounds, is_crowded=True).size == size


def test_a_refusal_names_the_highest_floor_within_the_caps(plan_both: MakePlans) -> None:
    bounds = Bounds(max_latency=0.0125, min_accuracy=0.95)
    refused = choose(plan_both(bounds), bounds)
    assert refused.infeasible is not None and format_size(SMALL) in refused.infeasible
    assert refused.nearest is not None and refused.nearest.min_accuracy is not None
    kept = replace(bounds, min_accuracy=refused.nearest.min_accuracy)
    assert choose(plan_both(kept), kept).infeasible is None


def test_a_refusal_of_a_cap_names_one_that_the_small_size_keeps(plan_both: MakePlans) -> None:
    bounds = Bounds(max_latency=0.001)
    nearest = choose(plan_both(bounds), bounds).nearest
    assert nearest is not None and nearest.max_latency is not None
    assert nearest.max_latency < SECONDS[LARGE]
    kept = Bounds(max_latency=nearest.max_latency)
    assert choose(plan_both(kept), kept).infeasible is None


@given(
    prices=st.lists(st.floats(0, 1e4), min_size=2, max_size=6).map(sorted),
    cap=st.sampled_from([None, 0.5, 0.016]),
)
def test_a_higher_price_of_energy_never_buys_more_of_it(
    plan_both: MakePlans, prices: list[float], cap: float | None
) -> None:
    bounds = Bounds(max_latency=cap)
    free = choose(plan_both(bounds), bounds)
    plans = [choose(plan_both(bounds, price=price), bounds) for price in prices]
    spent = [plan.expected_energy or inf for plan in (free, *plans)]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(spent))
    least = choose(plan_both(bounds, price=inf), bounds)
    assert (least.size, least.exit, least.limited_by) == (SMALL, 0, "price")


def test_a_point_is_dominated_by_another_size_that_is_as_good_and_no_later() -> None:
    def point(size: Size, exit: int, accuracy: float, latency: float) -> OperatingPoint:
        return OperatingPoint(exit, accuracy, latency, None, False, size)

    points = [
        point(LARGE, 0, 0.7, 0.010),
        point(LARGE, 1, 0.9, 0.020),
        point(SMALL, 0, 0.6, 0.003),
        point(SMALL, 1, 0.75, 0.006),
    ]
    shown = pareto(points)
    assert [(each.size, each.exit) for each in shown] == [
        (SMALL, 0), (SMALL, 1), (LARGE, 0), (LARGE, 1),
    ]  # fmt: skip
    assert [each.dominated for each in shown] == [False, False, True, False]


def test_floors_of_several_sizes_share_the_error() -> None:
    assert level_of_each(0.95, 1) == 0.95
    assert level_of_each(0.95, 5) == pytest.approx(0.99)


def test_a_variant_is_named_by_its_size_and_known_by_its_model() -> None:
    assert variant_name("net", None) == model_of("net") == "net"
    assert variant_name("net", (96, 128)) == "net@96x128"
    assert model_of("net@96x128") == "net"
    assert size_of("net@96x128") == (96, 128)
    for none in ("net", "net@", "net@96", "net@\u0663x3", "net@1_0x3", f"net@{5000 * '9'}x1"):
        assert size_of(none) is None
