"""Several lanes: whether one more batch starts beside others, and when lanes get free."""

from __future__ import annotations

from collections.abc import Callable
from math import e, inf
from typing import Any

import pytest

from delen.bundle.calibration import Calibration
from delen.core.dispatch import Key, Task
from delen.profile.cost_model import CostModel
from delen.scheduler.core import Scheduler
from delen.scheduler.lanes import Batch
from delen.scheduler.model_view import ScheduledModel
from delen.scheduler.policy_guard import InRank

SEGMENT = 0.01
MakeTask = Callable[..., Task]
MakeScheduler = Callable[..., Scheduler]


class OneByOne(InRank):
    """Runs what ranks first alone, and keeps what it was told of times."""

    name = "one_by_one"

    def __init__(self) -> None:
        self.typical: list[float] = []

    def choose(self, now: float, waiting: Any, models: Any) -> Any:
        self.typical.append(models["m"].typical(0, 0, 1))
        turn = super().choose(now, waiting, models)
        return type(turn)(run=turn.run[:1])


@pytest.fixture
def policy() -> OneByOne:
    return OneByOne()


@pytest.fixture
def make_scheduler(
    make_costs: Callable[..., CostModel],
    make_calibration: Callable[..., Calibration],
    policy: OneByOne,
) -> MakeScheduler:
    """Three segments of 10 ms alone; ``corun`` says how much longer beside others."""

    def make(lanes: int, *corun: float) -> Scheduler:
        costs = make_costs(SEGMENT, SEGMENT, SEGMENT, lanes=lanes, corun=(1.0, *corun))
        scheduler = Scheduler(policy, policy, lanes)
        view = ScheduledModel(costs, make_calibration(0.6, 0.7, 0.8, samples=2000), 8)
        scheduler.learn_model("m", view)
        return scheduler

    return make


def start(scheduler: Scheduler, now: float, *tasks: Task) -> list[Batch]:
    for task in tasks:
        scheduler.add(now, task)
    started = []
    again = True
    while again:
        decision = scheduler.next(now)
        again = decision.again
        if decision.run is not None:
            started.append(decision.run)
    return started


@pytest.mark.parametrize(
    ("corun", "at_once"),
    [((1.0, 1.0), 3), ((1.2, 1.4), 3), ((1.3, 2.9), 2), ((1.95, 2.0), 1), ((2.5, 2.5), 1)],
)
def test_a_lane_is_used_where_the_device_then_does_more(
    corun: tuple[float, ...], at_once: int, make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler(3, *corun)
    started = start(scheduler, 0.0, *(make_task() for _ in range(5)))
    assert len(started) == scheduler.busy == at_once
    scheduler.ran(SEGMENT, started[0], SEGMENT)
    assert len(start(scheduler, SEGMENT)) == 1, "the lane that got free is taken again"


@pytest.mark.parametrize(
    ("deadline", "beside"),
    [
        (inf, True),
        (0.020, True),
        (0.014, False),
        (0.0105, False),
        (0.009, True),
    ],
    ids=["none", "kept beside", "broken beside", "just kept alone", "lost anyway"],
)
def test_no_batch_starts_that_makes_a_running_one_late(
    deadline: float, beside: bool, make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler(2, 1.5)
    start(scheduler, 0.0, make_task(deadline=deadline))
    assert len(start(scheduler, 0.0, make_task())) == beside


def test_a_floor_needs_its_whole_plan_in_time(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler(2, 1.5)
    start(scheduler, 0.0, make_task(deadline=0.034, floor=True))
    assert start(scheduler, 0.0, make_task()) == []


def test_what_is_nearly_done_is_hardly_slowed_down(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler(2, 1.5)
    start(scheduler, 0.0, make_task(deadline=0.014))
    assert start(scheduler, 0.001, make_task()) == []
    assert len(start(scheduler, 0.006)) == 1


def test_policies_see_what_takes_longer_beside_others(
    make_scheduler: MakeScheduler, make_task: MakeTask, policy: OneByOne
) -> None:
    scheduler = make_scheduler(2, 1.5)
    first, second = start(scheduler, 0.0, make_task(), make_task())
    assert policy.typical == pytest.approx([SEGMENT, 1.5 * SEGMENT])
    assert (first.predicted, second.predicted) == pytest.approx((SEGMENT, 1.5 * SEGMENT))
    scheduler.ran(0.015, first, 0.015)
    scheduler.ran(0.015, second, 0.015)
    start(scheduler, 0.02, make_task())
    assert policy.typical[2] == pytest.approx(SEGMENT)


def test_a_lane_is_predicted_to_get_free_at_the_pace_of_the_moment(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    """The first is half done when a second joins; 5 ms alone are 7.5 ms beside it, and what then
    is left of the second, 5 ms, it has alone."""
    scheduler = make_scheduler(2, 1.5)

    def ahead(now: float) -> float:
        return scheduler.ahead(now, 5, "t", inf)

    (first,) = start(scheduler, 0.0, make_task())
    assert ahead(0.0) == 0.0, "there is a second lane"
    (second,) = start(scheduler, 0.005, make_task())
    assert ahead(0.005) == pytest.approx(0.0075)
    scheduler.ran(0.0125, first, 0.0125)
    assert first.spent == pytest.approx([0.005, 0.0075])
    start(scheduler, 0.0125, make_task())
    assert ahead(0.0125) == pytest.approx(0.0075)
    scheduler.ran(0.02, second, 0.015)
    assert second.spent == pytest.approx([0.0, 0.015])


def test_what_waits_goes_through_all_lanes(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler(2, 1.6)
    start(scheduler, 0.0, make_task(), make_task())
    running = scheduler.ahead(0.0, 5, "t", inf)
    assert running == pytest.approx(1.6 * SEGMENT)
    for _ in range(2):
        scheduler.add(0.0, make_task(floor=True))
    waiting = scheduler.ahead(0.0, 5, "t", inf) - running
    assert waiting == pytest.approx(2 * 3 * SEGMENT * 0.75 * 1.6 / 2), "in batches of two"


def test_what_is_seen_of_lanes_is_learnt(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler, now = make_scheduler(2), 0.0
    for _ in range(3):
        batches = start(scheduler, now, *(make_task() for _ in range(2)))
        now += 2.2 * SEGMENT
        for batch in batches:
            scheduler.ran(now, batch, 2.2 * SEGMENT, 2.2 * SEGMENT)
            for task in batch.tasks:
                scheduler.end(now, task)
    assert len(start(scheduler, now, make_task(), make_task())) == 1, "they do not pay, it showed"


def test_the_drivers_own_runs_take_a_lane(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler(1)
    view = scheduler._models["m"]
    own = scheduler.start_own(0.0, Key("m", 1), view)
    assert scheduler.busy == 1
    assert len(scheduler) == 0
    assert scheduler.ahead(0.0, 5, "t", inf) == pytest.approx(SEGMENT)
    assert start(scheduler, 0.0, make_task()) == []
    scheduler.forget_model("m")
    scheduler.ran(SEGMENT, own, SEGMENT, SEGMENT)
    assert scheduler.busy == 0


def test_utilisation_is_the_share_of_lanes_that_ran_lately(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler(2, 1.0)
    assert scheduler.utilisation(5.0) == 0.0
    (batch,) = start(scheduler, 10.0, make_task())
    assert scheduler.utilisation(10.0) == 0.0
    rising = [scheduler.utilisation(10.0 + seconds) for seconds in (1.0, 2.0, 30.0)]
    assert rising == sorted(rising)
    assert rising[-1] == pytest.approx(0.5, abs=1e-3)
    scheduler.ran(40.0, batch, 30.0)
    assert scheduler.utilisation(40.0) == pytest.approx(0.5, abs=1e-3)
    assert scheduler.utilisation(42.0) == pytest.approx(0.5 / e, abs=1e-3)
    assert scheduler.utilisation(100.0) < 1e-6
