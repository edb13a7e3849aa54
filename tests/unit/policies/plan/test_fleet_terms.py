"""Plans under a fleet's ceiling and its price of time."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.bundle.calibration import THRESHOLDS, Calibration
from delen.core.bounds import Bounds
from delen.core.fleet_terms import FleetTerms
from delen.core.plan import Plan
from delen.core.variant import Size
from delen.profile.cost_model import CostModel
from delen.scheduler.conditions import Conditions
from delen.scheduler.plan_cache import BestSize, Plans
from policies.plan.planner import Planner, PlannerSettings

MakeCosts = Callable[..., CostModel]
MakeCalibration = Callable[..., Calibration]

ACCURACIES = (0.6, 0.75, 0.85, 0.9)
SECONDS = (0.010, 0.010, 0.020, 0.040)
JOULES = (0.01, 0.01, 0.02, 0.04)
LARGE, MIDDLE, SMALL = (32, 32), (24, 24), (16, 16)

CAPS = [Bounds(), Bounds(max_latency=0.5), Bounds(max_latency=0.045), Bounds(max_energy=0.045)]


@pytest.fixture(scope="module")
def planner(make_calibration: MakeCalibration) -> Planner:
    return Planner(make_calibration(*ACCURACIES, samples=5000), PlannerSettings())


@pytest.fixture(scope="module")
def costs(make_costs: MakeCosts) -> CostModel:
    return make_costs(*SECONDS, energy=JOULES)


@pytest.fixture(scope="module")
def unmetered(make_costs: MakeCosts) -> CostModel:
    return make_costs(*SECONDS)


def under(ceiling: int, size: Size | None = None) -> FleetTerms:
    return FleetTerms(ceiling, size)


@pytest.mark.parametrize("bounds", CAPS)
@pytest.mark.parametrize("ceiling", [0, 1, 2])
def test_no_plan_goes_beyond_the_ceiling_and_it_says_so_where_that_was_the_reason(
    planner: Planner, costs: CostModel, bounds: Bounds, ceiling: int
) -> None:
    free = planner.plan(bounds, costs)
    plan = planner.plan(bounds, costs, terms=under(ceiling))
    assert plan.infeasible is None
    assert plan.exit == min(free.exit, ceiling)
    assert plan.limited_by == ("fleet" if ceiling < free.exit else free.limited_by)


@pytest.mark.parametrize("ceiling", [3, 99])
def test_a_ceiling_that_leaves_everything_changes_nothing(
    planner: Planner, costs: CostModel, ceiling: int
) -> None:
    for bounds in (*CAPS, Bounds(min_accuracy=0.7)):
        free = planner.plan(bounds, costs)
        assert planner.plan(bounds, costs, terms=under(ceiling))._replace(terms=free.terms) == free


def test_a_floor_wins_over_the_ceiling_with_the_first_exit_that_keeps_it(
    planner: Planner, costs: CostModel
) -> None:
    within = planner.plan(Bounds(min_accuracy=0.7), costs, terms=under(1))
    assert (within.exit, within.limited_by, within.guarantee) == (1, "fleet", 0.95)
    beyond = planner.plan(Bounds(min_accuracy=0.8), costs, terms=under(1))
    assert (beyond.exit, beyond.limited_by, beyond.guarantee) == (2, "fleet", 0.95)
    deepest = planner.plan(Bounds(min_accuracy=0.88), costs, terms=under(1))
    assert (deepest.exit, deepest.limited_by, deepest.guarantee) == (3, "depth", 0.95)


@pytest.mark.parametrize(
    "bounds", [Bounds(min_accuracy=0.99), Bounds(min_accuracy=0.88, max_latency=0.045)]
)
def test_a_floor_that_cannot_be_kept_is_refused_as_without_a_ceiling(
    planner: Planner, costs: CostModel, bounds: Bounds
) -> None:
    free = planner.plan(bounds, costs)
    plan = planner.plan(bounds, costs, terms=under(0))
    assert plan.infeasible is not None
    assert (plan.infeasible, plan.nearest) == (free.infeasible, free.nearest)


@given(
    st.floats(0.0, 20.0), st.floats(0.0, 20.0) | st.just(inf), st.sampled_from(CAPS), st.booleans()
)
def test_nothing_else_is_worth_more_after_the_prices_of_time_and_energy(
    planner: Planner,
    costs: CostModel,
    per_second: float,
    price: float,
    bounds: Bounds,
    may_stop_early: bool,
) -> None:
    terms = FleetTerms(per_second=per_second)
    top = planner.plan(bounds, costs, guaranteed=may_stop_early)
    plan = planner.plan(bounds, costs, guaranteed=may_stop_early, price=price, terms=terms)
    assert plan.infeasible is None
    assert plan.accuracy is not None
    table, seconds, joules = planner.calibration, np.cumsum(SECONDS), np.cumsum(JOULES)

    def worth(exit: int, threshold: float | None, accuracy: float) -> float:
        shares = np.eye(exit + 1)[exit]
        if threshold is not None:
            shares = np.array(table.exit_shares(threshold, exit))
        spent = float(shares @ joules[: exit + 1])
        toll = per_second * float(shares @ seconds[: exit + 1])
        return -spent if price == inf else accuracy - toll - price * spent

    rivals = [worth(top.exit, top.threshold, top.accuracy or 0.0)]
    for exit in range(top.exit + 1):
        if ACCURACIES[exit] < (top.accuracy or 0.0):
            rivals.append(worth(exit, None, ACCURACIES[exit]))
        if may_stop_early and exit:
            curve = table.curve(exit).accuracy
            rivals += [
                worth(exit, float(value), float(accuracy))
                for value, accuracy in zip(THRESHOLDS, curve, strict=True)
                if accuracy < (top.accuracy or 0.0)
            ]
    assert worth(plan.exit, plan.threshold, plan.accuracy) >= max(rivals) - 1e-3


def test_time_has_a_price_where_joules_are_unknown(planner: Planner, unmetered: CostModel) -> None:
    free = planner.plan(Bounds(), unmetered)
    dear = planner.plan(Bounds(), unmetered, terms=FleetTerms(per_second=30.0))
    assert free.limited_by == "depth"
    assert (dear.exit, dear.threshold, dear.limited_by) == (0, None, "price")
    middle = planner.plan(Bounds(), unmetered, terms=FleetTerms(per_second=4.0), guaranteed=False)
    assert 0 < middle.exit < 3


def test_time_on_a_slow_device_costs_more(
    planner: Planner, make_costs: Callable[..., CostModel]
) -> None:
    costs, terms = make_costs(*SECONDS, energy=JOULES), FleetTerms(per_second=4.0)
    fast = planner.plan(Bounds(), costs, guaranteed=False, terms=terms)
    for _ in range(50):
        costs.learn(0, 1, 4 * SECONDS[0])
    slow = planner.plan(Bounds(), costs, guaranteed=False, terms=terms)
    assert slow.exit < fast.exit


def test_a_price_of_time_leaves_floors_alone(planner: Planner, costs: CostModel) -> None:
    bounds = Bounds(min_accuracy=0.8)
    free = planner.plan(bounds, costs)
    dear = planner.plan(bounds, costs, terms=FleetTerms(per_second=1000.0))
    assert (dear.exit, dear.threshold, dear.limited_by) == (free.exit, free.threshold, "depth")


def test_energy_control_sees_what_is_left_at_other_prices(
    planner: Planner, costs: CostModel
) -> None:
    terms = FleetTerms(per_second=2.0)
    plan = planner.plan(Bounds(), costs, price=5.0, terms=terms)
    assert plan.frontier is planner.plan(Bounds(), costs, terms=terms).frontier
    assert plan.frontier.most == planner.plan(Bounds(), costs, terms=terms).frontier.at(0.0)


def test_kept_plans_are_those_of_their_terms(planner: Planner, costs: CostModel) -> None:
    plans = Plans(planner, costs)
    terms = [FleetTerms(), under(1), FleetTerms(per_second=4.0), FleetTerms(1, None, 40.0)]
    for _ in range(2):
        for each in terms:
            for bounds in (*CAPS, Bounds(min_accuracy=0.8)):
                plans.prepare(bounds, each)
                fresh = planner.plan(bounds, costs, terms=each)
                kept = plans.plan(bounds, Conditions(terms=each))
                assert kept[:9] == fresh[:9]


def test_without_plans_requests_run_to_the_ceiling(planner: Planner, costs: CostModel) -> None:
    plans = Plans(planner, costs)
    assert plans.unplanned().exit == 3
    limited = plans.unplanned(terms=under(1))
    assert (limited.exit, limited.limited_by) == (1, "fleet")
    absent = plans.unplanned([0.0, inf, inf, inf], under(1))
    assert (absent.exit, absent.limited_by) == (0, "memory")


@pytest.fixture(scope="module")
def sizes(make_calibration: MakeCalibration, make_costs: MakeCosts) -> BestSize:
    """Three sizes; each step down halves what it takes, and loses 0.04."""
    made = []
    for step, size in enumerate((LARGE, MIDDLE, SMALL)):
        table = make_calibration(*(each - 0.04 * step for each in ACCURACIES), samples=5000)
        planner = Planner(table, PlannerSettings(), size=size, sizes=3)
        costs = make_costs(
            *(each / 2**step for each in SECONDS), energy=tuple(j / 2**step for j in JOULES)
        )
        made.append(Plans(planner, costs))
    return BestSize(made)


def test_while_much_waits_the_own_size_is_kept_if_it_keeps_the_bounds(sizes: BestSize) -> None:
    floor = Bounds(min_accuracy=0.7)
    assert sizes.admit(floor).size != LARGE
    whole = sum(SECONDS)
    assert sizes.admit(floor, Conditions(waiting=0.4 * whole)).size != LARGE
    assert sizes.admit(floor, Conditions(waiting=2.0 * whole)).size == LARGE
    tight = Bounds(max_latency=0.8 * SECONDS[0])
    assert sizes.admit(tight, Conditions(waiting=2.0 * whole)).size != LARGE


def choose(sizes: BestSize, bounds: Bounds, terms: FleetTerms) -> Plan:
    return sizes.admit(bounds, Conditions(terms=terms))


def test_no_size_above_the_ceiling_is_used(sizes: BestSize) -> None:
    for bounds in CAPS:
        plan = choose(sizes, bounds, under(3, MIDDLE))
        assert (plan.size, plan.limited_by) == (MIDDLE, "fleet")
    between = choose(sizes, Bounds(), under(3, (28, 28)))
    assert between.size == MIDDLE
    assert choose(sizes, Bounds(), under(3, LARGE)).limited_by == "depth"


def test_a_ceiling_below_every_size_leaves_the_smallest(sizes: BestSize) -> None:
    plan = choose(sizes, Bounds(), under(3, (8, 8)))
    assert (plan.size, plan.limited_by) == (SMALL, "fleet")
    assert sizes.unplanned(terms=under(1, (8, 8))).size == SMALL


def test_a_floor_wins_over_the_largest_size(sizes: BestSize) -> None:
    kept = choose(sizes, Bounds(min_accuracy=0.8), under(3, SMALL))
    assert (kept.size, kept.guarantee) == (SMALL, 0.95)
    beyond = choose(sizes, Bounds(min_accuracy=0.87), under(3, SMALL))
    assert (beyond.size, beyond.guarantee) == (LARGE, 0.95)


def test_the_best_effort_stays_within_the_ceiling(sizes: BestSize) -> None:
    plan = sizes.admit(Bounds(max_latency=0.0001), Conditions(terms=under(3, MIDDLE)), True)
    assert plan.infeasible is not None
    assert plan.size in (MIDDLE, SMALL)


def test_a_price_of_time_has_requests_without_bounds_run_smaller(sizes: BestSize) -> None:
    assert choose(sizes, Bounds(), FleetTerms()).size == LARGE
    dear = choose(sizes, Bounds(), FleetTerms(per_second=3.0))
    assert (dear.size, dear.limited_by) == (MIDDLE, "price")
    dearest = choose(sizes, Bounds(), FleetTerms(per_second=1000.0))
    assert (dearest.size, dearest.exit) == (SMALL, 0)
