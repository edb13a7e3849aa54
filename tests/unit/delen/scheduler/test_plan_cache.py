from __future__ import annotations

import gc
from collections.abc import Callable
from math import inf

import pytest

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds
from delen.core.frontier import Frontier
from delen.core.plan import Plan
from delen.energy.accounts import Factors, ModelAccount
from delen.errors import InfeasibleBound, ModelLoading, Overloaded
from delen.profile.cost_model import CostModel
from delen.profile.profile import Profile
from delen.scheduler.conditions import Conditions
from delen.scheduler.plan_cache import Plans
from policies.plan.planner import Planner, PlannerSettings


@pytest.fixture
def costs(make_costs: Callable[..., CostModel]) -> CostModel:
    """Exits at 10, 30 and 60 ms."""
    return make_costs(0.01, 0.02, 0.03, energy=(0.01, 0.02, 0.03))


@pytest.fixture
def planner(make_calibration: Callable[..., Calibration]) -> Planner:
    return Planner(make_calibration(0.6, 0.7, 0.8), PlannerSettings())


BOUNDS = [
    Bounds(),
    Bounds(max_latency=0.065),
    Bounds(max_latency=0.035),
    Bounds(max_latency=0.015),
    Bounds(max_latency=0.001),
    Bounds(min_accuracy=0.65),
    Bounds(min_accuracy=0.99),
    Bounds(max_latency=0.035, min_accuracy=0.65),
    Bounds(max_energy=0.001),
    Bounds(max_energy=0.05),
    Bounds(max_latency=0.065, max_energy=0.001),
    Bounds(min_accuracy=0.65, max_energy=0.001),
]


def _told(plan: Plan) -> Plan:
    """``plan`` with frontiers compared by what can be chosen."""
    return plan._replace(frontier=plan.frontier.choices)  # type: ignore[arg-type]


def test_what_is_kept_is_what_would_be_planned_anew(planner: Planner, costs: CostModel) -> None:
    plans = Plans(planner, costs)
    for measured in (0.01, 0.01, 0.016, 0.016, 0.016, 0.01):
        costs.learn(0, 1, measured)
        for delay in (0.0, 0.004, 0.03):
            for bounds in BOUNDS:
                for guaranteed in (True, False):
                    for price in (0.0, 2.0, inf):
                        planned = planner.plan(bounds, costs, delay, guaranteed, price)
                        at = Conditions(delay, guaranteed=guaranteed, price=price)
                        assert _told(plans.plan(bounds, at)) == _told(planned)


def test_plans_at_energies_of_before_are_not_kept(
    planner: Planner, make_profile: Callable[..., Profile]
) -> None:
    profile, factors = make_profile(0.01, 0.02, 0.03), Factors()
    costs = CostModel(profile, ModelAccount(profile.model, 4.0, factors, False), level=0.99)
    plans, before = Plans(planner, costs), _frontiers()
    for step in range(1000):
        factors.publish({profile.model: (1 + 0.001 * step,) * 3})
        plans.plan(Bounds(max_energy=1.0))
    assert _frontiers() - before < 500


def _frontiers() -> int:
    gc.collect()
    return sum(isinstance(each, Frontier) for each in gc.get_objects())


def test_work_ahead_makes_a_plan_shallower_before_it_is_refused(
    planner: Planner, costs: CostModel
) -> None:
    plans, bounds = Plans(planner, costs), Bounds(max_latency=0.065)
    exits = [plans.admit(bounds, Conditions(ahead=ahead)).exit for ahead in (0.0, 0.02, 0.05)]
    assert exits == [2, 1, 0]
    with pytest.raises(Overloaded) as refused:
        plans.admit(bounds, Conditions(ahead=0.06))
    assert refused.value.retry_after == 0.06


def test_bounds_that_even_an_idle_device_cannot_keep_are_infeasible(
    planner: Planner, costs: CostModel
) -> None:
    plans = Plans(planner, costs)
    with pytest.raises(InfeasibleBound) as refused:
        plans.admit(Bounds(max_latency=0.005), Conditions(ahead=1.0))
    assert refused.value.nearest.max_latency == pytest.approx(0.0125)


def test_the_best_effort_is_never_refused(planner: Planner, costs: CostModel) -> None:
    bounds, behind = Bounds(max_latency=0.005), Conditions(ahead=1.0)
    plan = Plans(planner, costs).admit(bounds, behind, best_effort=True)
    assert plan.exit == 0
    assert plan.infeasible is not None


def test_who_keeps_to_no_plan_runs_to_the_deepest_exit(planner: Planner, costs: CostModel) -> None:
    plan = Plans(planner, costs).unplanned()
    assert (plan.exit, plan.threshold, plan.guarantee, plan.infeasible) == (2, None, None, None)
    assert plan.energy == pytest.approx(0.06)
    assert [case.forced for case in plan.cases] == list(planner.accuracies)


def test_a_plan_waits_for_segments_as_its_cap_allows(planner: Planner, costs: CostModel) -> None:
    plans = Plans(planner, costs)
    waits = (0.0, 0.0, 0.5)
    for _ in range(2):  # the second time they are kept ones
        assert plans.plan(Bounds(max_latency=0.1), Conditions(waits=waits)).exit == 1
        waited = plans.plan(Bounds(max_latency=0.6), Conditions(waits=waits))
        assert (waited.exit, waited.latency) == (2, pytest.approx(0.56))
        assert plans.plan(Bounds(max_energy=1.0), Conditions(waits=waits)).exit == 2
        assert plans.plan(Bounds(max_latency=0.1)).exit == 2


def test_no_plan_goes_beyond_what_there_is_room_for(planner: Planner, costs: CostModel) -> None:
    plans = Plans(planner, costs)
    waits = (0.0, 0.0, inf)
    for bounds in (Bounds(), Bounds(max_latency=9.0), Bounds(max_energy=1.0)):
        plan = plans.plan(bounds, Conditions(waits=waits))
        assert (plan.exit, plan.limited_by) == (1, "memory")
    assert plans.unplanned(waits).exit == 1
    with pytest.raises(InfeasibleBound, match="do not fit in memory") as refused:
        plans.admit(Bounds(min_accuracy=0.75), Conditions(waits=waits))
    assert refused.value.nearest.min_accuracy == pytest.approx(0.68, abs=0.02)


def test_a_request_that_only_waits_for_memory_is_told_how_long(
    planner: Planner, costs: CostModel
) -> None:
    plans = Plans(planner, costs)
    waits = (0.4, 0.5, 0.6)
    with pytest.raises(ModelLoading) as refused:
        plans.admit(Bounds(max_latency=0.1), Conditions(waits=waits))
    assert refused.value.retry_after == 0.4
    with pytest.raises(InfeasibleBound):
        plans.admit(Bounds(max_latency=0.001), Conditions(waits=waits))
    assert plans.admit(Bounds(max_latency=0.45), Conditions(spent=0.01, waits=waits)).exit == 0
