"""Plans for batches: no sample takes the time that the others need."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds
from delen.errors import BatchTooLarge, InfeasibleBound, ModelLoading, Overloaded
from delen.profile.cost_model import CostModel
from delen.scheduler.batch_plans import BatchPlans
from delen.scheduler.conditions import Conditions
from delen.scheduler.model_view import ScheduledModel
from delen.scheduler.plan_cache import Plans
from policies.plan.planner import Planner, PlannerSettings


@pytest.fixture
def plans(
    make_costs: Callable[..., CostModel], make_calibration: Callable[..., Calibration]
) -> BatchPlans:
    """Exits at 10, 30 and 60 ms, for each of eight samples together as for one alone."""
    costs, calibration = make_costs(0.01, 0.02, 0.03, growth=1.0), make_calibration(0.6, 0.7, 0.8)
    planner = Planner(calibration, PlannerSettings())
    return BatchPlans(Plans(planner, costs), ScheduledModel(costs, calibration, 8))


@pytest.mark.parametrize(
    ("samples", "exit"), [(1, 2), (16, 2), (17, 1), (33, 1), (34, 0), (100, 0)]
)
def test_all_samples_have_time_for_the_exit_that_one_is_planned_for(
    plans: BatchPlans, samples: int, exit: int
) -> None:
    plan = plans.admit(Bounds(max_latency=1.001), samples, False, Conditions())
    assert plan.exit == exit
    assert plan.latency == pytest.approx((0.01, 0.03, 0.06)[exit], abs=1e-3)


def test_a_batch_that_never_fits_names_a_size_that_does(plans: BatchPlans) -> None:
    bounds = Bounds(max_latency=1.001)
    with pytest.raises(BatchTooLarge) as refused:
        plans.admit(bounds, 101, False, Conditions(ahead=5.0))
    assert 80 <= refused.value.largest <= 100
    assert plans.admit(bounds, refused.value.largest, False, Conditions()).exit == 0


def test_a_batch_that_fits_without_the_work_ahead_is_told_how_long_that_takes(
    plans: BatchPlans,
) -> None:
    with pytest.raises(Overloaded) as refused:
        plans.admit(Bounds(max_latency=1.001), 100, False, Conditions(ahead=0.2))
    assert refused.value.retry_after == 0.2


def test_a_batch_is_refused_as_one_sample_is_where_that_cannot_be_planned(
    plans: BatchPlans,
) -> None:
    with pytest.raises(InfeasibleBound):
        plans.admit(Bounds(max_latency=0.001), 2, False, Conditions(ahead=1.0))
    assert plans.admit(Bounds(max_latency=0.001), 2, True, Conditions()).infeasible is not None


def test_a_batch_that_only_waits_for_memory_is_told_how_long(plans: BatchPlans) -> None:
    with pytest.raises(ModelLoading) as refused:
        plans.admit(Bounds(max_latency=1.001), 50, False, Conditions(waits=(1.5, 1.5, inf)))
    assert refused.value.retry_after == 1.5


def test_later_samples_get_shallower_and_are_refused_only_when_their_time_is_over(
    plans: BatchPlans,
) -> None:
    bounds = Bounds(max_latency=1.0)

    def exit_after(spent: float) -> int:
        return plans.later(bounds, 10, 5, False, Conditions(spent)).exit

    assert [exit_after(spent) for spent in (0.0, 0.5, 0.8, 0.95)] == [2, 1, 0, 0]
    with pytest.raises(Overloaded):
        exit_after(0.995)
    assert plans.later(bounds, 10, 5, True, Conditions(0.995)).exit == 0


def test_a_floor_is_kept_by_samples_that_come_late(plans: BatchPlans) -> None:
    bounds = Bounds(max_latency=1.0, min_accuracy=0.65)
    plan = plans.later(bounds, 50, 0, False, Conditions(0.9))
    assert plan.guarantee is not None
