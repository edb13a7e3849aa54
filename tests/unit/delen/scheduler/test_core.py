from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from math import inf
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.core.dispatch import DispatchPolicy, PolicyCapabilities, Task, Turn
from delen.errors import Overloaded
from delen.profile.interference import Interference
from delen.scheduler.core import Scheduler
from delen.scheduler.lanes import Batch
from delen.scheduler.model_view import ScheduledModel
from delen.scheduler.policy_guard import InRank
from delen.scheduler.shares import Shares
from policies.dispatch.value import Value

MakeTask = Callable[..., Task]
SEGMENT = 0.01


class OneByOne(InRank):
    """Runs what ranks first alone."""

    name = "one_by_one"

    def choose(self, now: float, waiting: Any, models: Any) -> Turn:
        return Turn(run=super().choose(now, waiting, models).run[:1])


class Idle(InRank):
    """Runs nothing."""

    name = "idle"

    def choose(self, now: float, waiting: Any, models: Any) -> Turn:
        return Turn(wake=now + 0.5)


@pytest.fixture
def make_scheduler(view: ScheduledModel) -> Callable[..., Scheduler]:
    def make(policy: DispatchPolicy | None = None, **how: Any) -> Scheduler:
        chosen = policy or OneByOne()
        scheduler = Scheduler(chosen, chosen, **how)
        scheduler.learn_model("m", view)
        return scheduler

    return make


MakeScheduler = Callable[..., Scheduler]


def run_next(scheduler: Scheduler, now: float) -> Batch:
    batch = scheduler.next(now).run
    assert batch is not None
    return batch


def test_a_task_goes_from_exit_to_exit_until_it_ends(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler, task, now = make_scheduler(), make_task(), 0.0
    scheduler.add(now, task)
    for segment in range(3):
        assert task.id in scheduler
        batch = run_next(scheduler, now)
        assert batch.key == ("m", segment)
        assert batch.tasks == (task,)
        assert batch.predicted == pytest.approx(SEGMENT)
        assert task.id not in scheduler
        now += SEGMENT
        scheduler.ran(now, batch, SEGMENT)
        if segment < 2:
            scheduler.resume(now, task, confidence=0.1 * segment, joules_left=5.0)
            assert (task.exit, task.segment, task.waiting_since) == (segment, segment + 1, now)
            assert (task.confidence, task.joules_left) == (0.1 * segment, 5.0)
    scheduler.end(now, task)
    assert len(scheduler) == 0
    assert scheduler.next(now).run is None


def test_every_lane_gets_a_batch(make_scheduler: MakeScheduler, make_task: MakeTask) -> None:
    scheduler = make_scheduler(lanes=2)
    for _ in range(3):
        scheduler.add(0.0, make_task())
    first = scheduler.next(0.0)
    assert first.again
    second = scheduler.next(0.0)
    assert second.run is not None
    assert not second.again
    assert scheduler.next(0.0).run is None
    assert first.run is not None
    scheduler.ran(SEGMENT, first.run, SEGMENT)
    assert scheduler.next(SEGMENT).run is not None


def test_what_cannot_get_better_in_time_is_answered_when_the_lane_is_taken(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    """All wait for segment 1; one runs, and then there is no time left for the next."""
    scheduler = make_scheduler()
    first, second, third = (
        make_task(deadline=deadline, segment=1, exit=0) for deadline in (0.025, 0.026, 0.05)
    )
    for task in (first, second, third):
        scheduler.add(0.0, task)
    decision = scheduler.next(0.01)
    assert decision.run is not None
    assert decision.run.tasks == (first,)
    assert decision.overdue == (second,)
    assert third.id in scheduler
    assert decision.wake == pytest.approx(0.05 - SEGMENT)
    overrun = scheduler.next(decision.wake)
    assert overrun.overdue == (third,), "the batch took so long that the third one is late, too"


def test_what_is_held_back_runs_at_the_latest_when_it_has_to(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler, task = make_scheduler(Idle()), make_task(deadline=0.1, segment=1, exit=0)
    scheduler.add(0.0, task)
    decision = scheduler.next(0.0)
    assert decision.overdue == ()
    assert decision.wake == pytest.approx(0.1 - SEGMENT)
    assert scheduler.failures == 0
    assert run_next(scheduler, decision.wake).tasks == (task,)
    assert scheduler.failures == 1


def test_a_policy_without_guards_keeps_its_late_tasks(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    class Unguarded(OneByOne):
        capabilities = PolicyCapabilities(guards=False)

    scheduler, task = make_scheduler(Unguarded()), make_task(deadline=0.1, segment=1, exit=0)
    scheduler.add(0.0, task)
    assert run_next(scheduler, 5.0).tasks == (task,)


def test_a_task_without_an_answer_is_not_answered(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler, task = make_scheduler(), make_task(deadline=0.1)
    scheduler.add(0.0, task)
    assert run_next(scheduler, 5.0).tasks == (task,)


def test_other_bounds_for_a_waiting_task_are_a_task_that_is_taken_out_and_added_again(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler()
    first, second = make_task(deadline=1.0), make_task(deadline=2.0)
    scheduler.add(0.0, first)
    scheduler.add(0.0, second)
    assert scheduler.remove(0.0, second.id) is second
    hurried = replace(second, deadline=0.5)
    scheduler.add(0.0, hurried)
    assert run_next(scheduler, 0.0).tasks == (hurried,)
    with pytest.raises(KeyError):
        scheduler.remove(0.0, second.id)


def test_ten_thousand_cancellations_leave_nothing(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler(max_backlog=1.0)
    tasks = [make_task(deadline=1.0 + n % 7, segment=n % 3, exit=n % 3 - 1) for n in range(10_000)]
    for task in tasks:
        scheduler.add(0.0, task)
    with pytest.raises(Overloaded):
        scheduler.check_room(0.0, "t")
    for task in tasks[::2] + tasks[1::2]:
        assert scheduler.remove(0.0, task.id) is task
    assert len(scheduler) == 0
    assert scheduler.ahead(0.0, 9, "t", inf) == 0.0
    scheduler.check_room(0.0, "t")
    assert scheduler.next(0.0).wake == inf
    with pytest.raises(KeyError):
        scheduler.remove(0.0, tasks[0].id)


def test_cancellations_take_no_more_memory_each_time(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    """Tables keep the size that they once had; nothing else may stay."""
    scheduler = make_scheduler(Value())

    def rush() -> int:
        tasks = [make_task(deadline=1.0 + n % 7, segment=n % 3, exit=n % 3 - 1) for n in range(300)]
        for task in tasks:
            scheduler.add(0.0, task)
        batch = run_next(scheduler, 0.0)
        scheduler.ran(0.01, batch, SEGMENT)
        for task in batch.tasks:
            scheduler.end(0.01, task)
        for task in tasks:
            if task.id in scheduler:
                scheduler.remove(0.02, task.id)
        del tasks, batch
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        after = [rush() for _ in range(4)]
    finally:
        tracemalloc.stop()
    assert after[-1] - after[1] < 10_000, f"{after}: a task takes some hundred bytes"


def test_a_clock_that_steps_back_stands_still(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler, task = make_scheduler(), make_task()
    scheduler.add(100.0, task)
    batch = run_next(scheduler, 1.0)
    assert batch.began == 100.0
    scheduler.ran(50.0, batch, SEGMENT)
    scheduler.resume(50.0, task, 0.5)
    assert task.waiting_since == 100.0


def test_the_work_ahead_is_what_ranks_before_and_cannot_be_left_out(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler()
    scheduler.add(0.0, make_task(deadline=1.0))
    assert scheduler.ahead(0.0, 5, "t", 2.0) == pytest.approx(SEGMENT)
    assert scheduler.ahead(0.0, 5, "t", 0.5) == 0.0
    assert scheduler.ahead(0.0, 4, "t", inf) == 0.0
    scheduler.add(0.0, make_task(deadline=1.0, segment=1, exit=0))
    assert scheduler.ahead(0.0, 5, "t", 2.0) == pytest.approx(SEGMENT), "it has an answer"
    scheduler.add(0.0, make_task(deadline=1.0, segment=1, exit=0, floor=True))
    assert scheduler.ahead(0.0, 5, "t", 2.0) == pytest.approx(SEGMENT + 0.75 * 2 * SEGMENT)


def test_what_has_no_deadline_goes_first_when_it_has_waited_for_five_backlogs(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler(max_backlog=1.0)
    free = make_task(arrived=0.0)
    earlier, later = make_task(arrived=4.0, deadline=4.9), make_task(arrived=4.0, deadline=5.1)
    for task in (later, free, earlier):
        scheduler.add(4.0, task)
    order = []
    while len(scheduler):
        batch = run_next(scheduler, 4.0)
        order += batch.tasks
        scheduler.ran(4.0, batch, SEGMENT)
        scheduler.end(4.0, batch.tasks[0])
    assert order == [earlier, free, later]
    scheduler.add(4.0, make_task(arrived=4.0, deadline=9.5))
    assert scheduler.ahead(4.0, 5, "t", inf) == 0.0, "that is due at 9"
    assert scheduler.ahead(4.6, 5, "t", inf) == pytest.approx(SEGMENT)


def test_the_rest_of_what_runs_is_ahead_of_everybody(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler()
    scheduler.add(0.0, make_task())
    run_next(scheduler, 0.0)
    assert scheduler.ahead(0.004, 1, "t", 0.0) == pytest.approx(0.006)
    assert scheduler.ahead(0.5, 1, "t", 0.0) == 0.0


def test_backlogs_are_bounded_by_work_and_by_share(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler(max_backlog=0.3)
    for _ in range(11):
        scheduler.add(0.0, make_task(tenant="flood"))
    with pytest.raises(Overloaded) as refused:
        scheduler.check_room(0.0, "flood")
    assert refused.value.retry_after == pytest.approx(1.25 * 0.03 * 4.5 / 8)
    scheduler.check_room(0.0, "other")
    scheduler.add(0.0, make_task(tenant="other"))
    with pytest.raises(Overloaded) as refused:
        scheduler.check_room(0.0, "flood")
    assert refused.value.retry_after == pytest.approx(1.25 * 0.18 * 4.5 / 8 / 0.5)


def test_after_the_time_to_retry_there_is_room(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler, now = make_scheduler(InRank(), max_backlog=0.2), 0.0
    for _ in range(40):
        scheduler.add(0.0, make_task())
    with pytest.raises(Overloaded) as refused:
        scheduler.check_room(0.0, "t")
    while now < refused.value.retry_after and len(scheduler):
        batch = run_next(scheduler, now)
        now += batch.predicted
        scheduler.ran(now, batch, batch.predicted)
        for task in batch.tasks:
            if task.segment == 2:
                scheduler.end(now, task)
            else:
                scheduler.resume(now, task, 0.5)
    scheduler.check_room(now, "t")


def test_who_asks_more_than_its_share_waits_behind_the_others(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler(shares=Shares({"calm": 2.0}))
    scheduler.add(0.0, make_task(tenant="calm", deadline=9.0))
    flood = [make_task(tenant="flood", deadline=1.0) for _ in range(50)]
    for task in flood:
        scheduler.add(0.0, task)
    calm = make_task(tenant="calm", deadline=9.0)
    scheduler.add(0.0, calm)
    assert not calm.behind
    assert calm.weight == 2.0
    assert [task.behind for task in flood] == sorted(task.behind for task in flood)
    assert flood[-1].behind
    assert scheduler.ahead(0.0, 5, "calm", 9.5) < scheduler.ahead(0.0, 5, "flood", 1.5)
    order = []
    while len(scheduler):
        batch = run_next(scheduler, 0.0)
        order += batch.tasks
        scheduler.ran(0.0, batch, SEGMENT)
        scheduler.end(0.0, batch.tasks[0])
    assert order.index(calm) < order.index(flood[-1])


def test_a_model_can_come_and_go(
    make_scheduler: MakeScheduler, make_task: MakeTask, view: ScheduledModel
) -> None:
    scheduler = make_scheduler()
    scheduler.learn_model("n", view)
    scheduler.add(0.0, make_task(model="n"))
    assert run_next(scheduler, 0.0).key == ("n", 0)
    scheduler.forget_model("m")
    with pytest.raises(KeyError):
        scheduler.add(0.0, make_task(model="m"))


class Wild(InRank):
    """Runs, answers, refuses and holds at random, always within what is allowed."""

    name = "wild"

    def __init__(self, random: Random) -> None:
        self._random = random
        self.told: list[int] = []

    def choose(self, now: float, waiting: Any, models: Any) -> Turn:
        groups = [list(group) for group in waiting.values()]
        group = self._random.choice(groups)
        has_to = any(task.deadline - SEGMENT <= now for tasks in groups for task in tasks)
        chosen = group[: self._random.randint(int(has_to), 8)]
        rest = [task for tasks in groups for task in tasks if task not in chosen]
        ends = self._random.sample(rest, self._random.randint(0, min(2, len(rest))))
        answer = [task for task in ends if task.exit >= 0]
        refuse = [task for task in ends if task.exit < 0]
        return Turn(chosen, answer, refuse, wake=now + 0.003)

    def ended(self, now: float, task: Task) -> None:
        self.told.append(task.id)


@given(
    st.lists(st.tuples(st.floats(0.001, 0.2), st.booleans()), min_size=1, max_size=40),
    st.integers(0, 1000),
    st.integers(1, 3),
)
def test_every_task_ends_once_and_nothing_is_left(
    asked: list[tuple[float, bool]], seed: int, lanes: int
) -> None:
    random = Random(seed)
    view: Any = SimpleNamespace(
        max_batch=8,
        typical=lambda first, last, batch: SEGMENT * (last - first + 1),
        latency_upper=lambda first, last, batch: SEGMENT * (last - first + 1),
        expected=lambda task: SEGMENT,
        mandatory=lambda task, expected: expected,
        next_useful=lambda task: task.segment,
        discount=lambda segment, waiting: 1.0,
        slowdown_factor=1.0,
        interference=Interference.of((1.0, 1.2, 1.4), lanes),
        run_beside=lambda others: None,
    )
    policy = Wild(random)
    scheduler = Scheduler(policy, InRank(), lanes=lanes)
    scheduler.learn_model("m", view)
    ended: list[Task] = []
    running: list[Batch] = []
    tasks = [
        Task(id, "m", f"t{id % 3}", 0.0, 0, 2, deadline=gap * 3 if capped else inf)
        for id, (gap, capped) in enumerate(asked)
    ]
    coming, now = list(tasks), 0.0
    for _ in range(10_000):
        if not coming and not running and not len(scheduler):
            break
        if coming:
            scheduler.add(now, coming.pop(0))
        for batch in [batch for batch in running if random.random() < 0.5]:
            running.remove(batch)
            scheduler.ran(now, batch, now - batch.began)
            for task in batch.tasks:
                if task.segment == task.last or random.random() < 0.2:
                    scheduler.end(now, task)
                    ended.append(task)
                else:
                    scheduler.resume(now, task, random.random())
        again = True
        while again:
            decision = scheduler.next(now)
            again = decision.again
            assert decision.wake > now or decision.again
            ended += [*decision.answer, *decision.overdue, *decision.refuse]
            if decision.run is not None:
                running.append(decision.run)
            assert len(running) <= lanes
        now += 0.002
    assert sorted(task.id for task in ended) == [task.id for task in tasks]
    assert sorted(policy.told) == [task.id for task in tasks]
    assert scheduler.failures == 0
    assert not scheduler._device_times
    assert scheduler._backlog.seconds == 0.0
    assert len(scheduler._start_by) == 0


def test_who_is_over_its_share_waits_for_the_others_whatever_its_priority(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler(InRank())
    for tenant in ("flood", "calm", "flood", "calm"):
        scheduler.add(0.0, make_task(tenant=tenant))
    scheduler.shares.set_priority("flood", 1)
    flood = [make_task(tenant="flood", priority=1) for _ in range(200)]
    for task in flood:
        scheduler.add(0.0, task)
    calm = make_task(tenant="calm")
    scheduler.add(0.0, calm)
    assert not flood[0].behind
    assert flood[-1].behind
    assert flood[0].rank < calm.rank < flood[-1].rank


def test_requests_under_ever_new_names_fill_no_more_than_one_backlog(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler, taken = make_scheduler(max_backlog=0.3), 0
    for number in range(200):
        try:
            scheduler.check_room(0.0, f"flood-{number}")
        except Overloaded:
            continue
        scheduler.add(0.0, make_task(tenant=f"flood-{number}"))
        taken += 1
    assert taken < 15
    scheduler.check_room(0.0, "flood-0")


def test_who_was_alone_does_not_stay_before_who_comes(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    """Nor if all that comes is refused because so much is ahead of it."""
    scheduler = make_scheduler(InRank())
    flood = [make_task(tenant="flood", priority=1, floor=True) for _ in range(50)]
    for task in flood:
        scheduler.add(0.0, task)
    assert {task.priority for task in flood} == {1}
    assert scheduler.ahead(0.0, None, "calm", 0.1) == 0.0
    assert {task.priority for task in flood} == {5}
    calm = make_task(tenant="calm", deadline=0.1)
    scheduler.add(0.0, calm)
    assert run_next(scheduler, 0.0).tasks[0] is calm


def test_a_task_whose_segment_is_not_in_memory_delays_no_others(
    make_scheduler: MakeScheduler, make_task: MakeTask, view: ScheduledModel
) -> None:
    scheduler = make_scheduler()
    scheduler.learn_model("n", view)
    scheduler.keep_resident("m", 0)
    absent, present = make_task(id=1), make_task(id=2, model="n")
    scheduler.add(0.0, absent)
    assert scheduler.next(0.0).idle
    scheduler.add(0.0, present)
    assert run_next(scheduler, 0.0).tasks == (present,)
    assert scheduler.parked("m") == [absent]
    scheduler.keep_resident("m", 1)
    assert scheduler.parked("m") == []


def test_a_task_is_parked_at_the_first_segment_that_is_not_in_memory(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler()
    scheduler.keep_resident("m", 1)
    task = make_task(id=1)
    scheduler.add(0.0, task)
    batch = run_next(scheduler, 0.0)
    scheduler.ran(SEGMENT, batch, SEGMENT)
    scheduler.resume(SEGMENT, task, 0.5)
    assert scheduler.next(SEGMENT).idle
    scheduler.keep_resident("m", 2)
    assert run_next(scheduler, SEGMENT).tasks == (task,)


@pytest.mark.parametrize("segment", [0, 1])
def test_a_parked_task_ends_when_its_deadline_nears(
    make_scheduler: MakeScheduler, make_task: MakeTask, segment: int
) -> None:
    scheduler = make_scheduler()
    scheduler.keep_resident("m", segment)
    task = make_task(id=1, deadline=1.0)
    scheduler.add(0.0, task)
    if segment:
        scheduler.ran(SEGMENT, run_next(scheduler, 0.0), SEGMENT)
        scheduler.resume(SEGMENT, task, 0.5)
    decision = scheduler.next(SEGMENT)
    assert decision.idle and 0.9 < decision.wake < 1.0
    assert scheduler.next(decision.wake + 1e-6).overdue == (task,)
    assert len(scheduler) == 0


def test_a_removed_task_leaves_no_parked_group(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler = make_scheduler()
    scheduler.keep_resident("m", 0)
    scheduler.add(0.0, make_task(id=1))
    scheduler.remove(0.0, 1)
    assert scheduler.parked("m") == []
    scheduler.keep_resident("m", 3)
    scheduler.add(0.0, make_task(id=2))
    assert run_next(scheduler, 0.0).tasks[0].id == 2
