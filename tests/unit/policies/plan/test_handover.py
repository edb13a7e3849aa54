"""Plans of jobs of which another node does a part."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds
from delen.core.fleet_terms import NO_TERMS, FleetTerms
from delen.core.plan import Plan
from delen.profile.cost_model import CostModel
from policies.plan.handover import Start, plan_from, plan_until
from policies.plan.planner import DEPARTED, NOT_HELD_OUT, Planner, PlannerSettings

ACCURACIES = (0.6, 0.7, 0.8, 0.79, 0.9)
SECONDS = (0.010, 0.012, 0.014, 0.016, 0.018)
JOULES = (0.05, 0.06, 0.07, 0.08, 0.09)


@pytest.fixture(scope="module")
def planner(make_calibration: Callable[..., Calibration]) -> Planner:
    return Planner(make_calibration(*ACCURACIES, samples=5_000), PlannerSettings())


@pytest.fixture(scope="module")
def costs(make_costs: Callable[..., CostModel]) -> CostModel:
    return make_costs(*SECONDS, energy=JOULES, answer=0.0003)


def plan_after(
    planner: Planner,
    costs: CostModel,
    bounds: Bounds,
    exit: int = 1,
    threshold: float | None = None,
    joules: float | None = 0.2,
    delay: float = 0.0,
    guaranteed: bool = True,
    price: float = 0.0,
    waits: list[float] | None = None,
    terms: FleetTerms = NO_TERMS,
) -> Plan:
    start = Start(exit, threshold, joules)
    return plan_from(planner, costs, bounds, start, delay, guaranteed, price, waits, terms)


def test_only_the_segments_after_the_start_take_time_and_joules(
    planner: Planner, costs: CostModel
) -> None:
    whole = planner.plan(Bounds(max_latency=1.0), costs)
    plan = plan_after(planner, costs, Bounds(max_latency=1.0))
    assert (whole.exit, plan.exit, plan.limited_by) == (4, 4, "depth")
    assert whole.latency - plan.latency == pytest.approx(costs.latency(0, 1, 1), rel=0.1)
    assert plan.energy == pytest.approx(0.2 + sum(JOULES[2:]))
    assert plan.expected_energy == pytest.approx(sum(JOULES[2:]))


def test_caps_count_what_was_spent(planner: Planner, costs: CostModel) -> None:
    at_two = plan_after(planner, costs, Bounds(max_latency=1.0)).latency
    late = plan_after(planner, costs, Bounds(max_latency=1.0), delay=1.0 - at_two + 0.005)
    assert (late.exit, late.limited_by, late.infeasible) == (2, "latency", None)
    dear = plan_after(planner, costs, Bounds(max_energy=0.28))
    assert (dear.exit, dear.limited_by, dear.infeasible) == (2, "energy", None)
    broke = plan_after(planner, costs, Bounds(max_energy=0.26))
    assert broke.infeasible is not None and "exit 2" in broke.infeasible
    assert broke.nearest is not None
    assert broke.nearest.max_energy == pytest.approx(1.05 * 0.27)
    unknown = plan_after(planner, costs, Bounds(max_energy=9.0), joules=None)
    assert unknown.infeasible is not None and "earlier part" in unknown.infeasible


def test_a_machine_without_an_energy_source_says_so_whatever_the_parts_before_took(
    planner: Planner, make_costs: Callable[..., CostModel]
) -> None:
    unmeasured = make_costs(*SECONDS)
    for joules in (0.2, None):
        plan = plan_after(planner, unmeasured, Bounds(max_energy=9.0), joules=joules)
        assert plan.infeasible is not None and "no energy source" in plan.infeasible


def test_what_is_in_memory_limits_it(planner: Planner, costs: CostModel) -> None:
    plan = plan_after(planner, costs, Bounds(), waits=[0.0, 0.0, 0.0, inf, inf])
    assert (plan.exit, plan.limited_by) == (2, "memory")


def test_it_stops_where_the_node_before_would_have(planner: Planner, costs: CostModel) -> None:
    assert plan_after(planner, costs, Bounds()).threshold is None
    assert plan_after(planner, costs, Bounds(), threshold=0.8).threshold == 0.8
    doubted = plan_after(planner, costs, Bounds(), threshold=0.8, guaranteed=False)
    assert doubted.threshold is None
    start = Start(1, 0.8, 0.2)
    for lowest, threshold in ((0.5, 0.8), (0.9, 0.9), (inf, None)):
        others = plan_from(
            planner, costs, Bounds(min_accuracy=0.75), start, 0.0, True, 0.0, None, NO_TERMS, lowest
        )
        assert (others.threshold, others.guarantee) == (threshold, None)
        assert others.unguaranteed == DEPARTED


@pytest.mark.parametrize("floor", [0.75, 0.85])
def test_a_floor_takes_a_threshold_that_is_certified(
    planner: Planner, costs: CostModel, floor: float
) -> None:
    certified = planner.certify(4, floor)
    assert certified is not None
    bounds = Bounds(min_accuracy=floor)
    for threshold in (certified.value, certified.value + 0.005, 1.0, None):
        plan = plan_after(planner, costs, bounds, threshold=threshold)
        assert (plan.infeasible, plan.guarantee) == (None, 0.95)
        assert plan.accuracy is not None and plan.accuracy > floor
    lax = plan_after(planner, costs, bounds, threshold=certified.value - 0.005)
    assert lax.infeasible is not None
    assert lax.guarantee is None
    shallow = plan_after(planner, costs, Bounds(min_accuracy=0.85, max_energy=0.28), threshold=1.0)
    assert shallow.infeasible is not None and "up to 2" in shallow.infeasible


def test_no_floor_is_guaranteed_where_none_can_be(
    make_calibration: Callable[..., Calibration], costs: CostModel
) -> None:
    table = make_calibration(*ACCURACIES, samples=5_000)
    trained_on = Planner(table, PlannerSettings(), is_held_out=False)
    plan = plan_after(trained_on, costs, Bounds(min_accuracy=0.75))
    assert (plan.guarantee, plan.unguaranteed) == (None, NOT_HELD_OUT)
    by_conditions = Planner(table, PlannerSettings(), by_threshold=False)
    plan = plan_after(by_conditions, costs, Bounds(min_accuracy=0.75), threshold=0.9)
    assert plan.infeasible is not None
    assert (plan.threshold, plan.accuracy) == (None, None)


def test_a_price_makes_it_shallower_but_not_less_than_the_next_exit(
    planner: Planner, costs: CostModel
) -> None:
    exits = [plan_after(planner, costs, Bounds(), price=price).exit for price in (0, 0.5, inf)]
    assert exits[0] == 4
    assert exits == sorted(exits, reverse=True)
    assert exits[-1] == 2
    timed = plan_after(planner, costs, Bounds(), terms=FleetTerms(per_second=100.0))
    assert (timed.exit, timed.limited_by) == (2, "price")


def test_a_ceiling_holds_beyond_the_start(planner: Planner, costs: CostModel) -> None:
    for ceiling, exit in ((3, 2), (2, 2), (0, 2)):
        plan = plan_after(planner, costs, Bounds(), terms=FleetTerms(deepest=ceiling))
        assert (plan.exit, plan.limited_by) == (exit, "fleet")


@pytest.mark.parametrize("bounds", [Bounds(), Bounds(min_accuracy=0.75), Bounds(max_latency=1.0)])
def test_a_part_stops_early_as_the_whole_would(
    planner: Planner, costs: CostModel, bounds: Bounds
) -> None:
    whole = planner.plan(bounds, costs)
    part = plan_until(planner, costs, bounds, 1, 0.0, True, None, NO_TERMS)
    assert (part.exit, part.threshold, part.accuracy) == (1, whole.threshold, whole.accuracy)
    assert part.energy == pytest.approx(sum(JOULES[:2]))
    assert part.infeasible is None


def test_the_caps_are_those_of_the_part(planner: Planner, costs: CostModel) -> None:
    bounds = Bounds(max_energy=0.12, min_accuracy=0.75)
    assert planner.plan(bounds, costs).infeasible is not None
    assert plan_until(planner, costs, bounds, 1, 0.0, True, None, NO_TERMS).infeasible is None
    plan = plan_until(planner, costs, bounds, 2, 0.0, True, None, NO_TERMS)
    assert plan.infeasible is not None and "exit 2" in plan.infeasible
    high = plan_until(planner, costs, Bounds(min_accuracy=0.99), 1, 0.0, True, None, NO_TERMS)
    assert high.infeasible is not None and "min_accuracy" in high.infeasible
    assert high.nearest is not None and high.nearest.min_accuracy is not None
