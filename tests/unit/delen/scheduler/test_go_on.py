"""A task that is alone goes on without a choice: just as if the policy had been asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from random import Random
from typing import Any

import pytest

from delen.bundle.calibration import Calibration
from delen.core.dispatch import Task, Turn
from delen.profile.cost_model import CostModel
from delen.scheduler.core import Scheduler
from delen.scheduler.lanes import Batch
from delen.scheduler.model_view import ScheduledModel
from policies.dispatch.value import Value

SEGMENT = 0.01
MakeTask = Callable[..., Task]


class Counting(Value):
    """Counts how often it is asked to choose."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def choose(self, now: float, waiting: Any, models: Any) -> Turn:
        self.asked += 1
        return super().choose(now, waiting, models)


class Asked(Counting):
    """Has to be asked each time."""

    runs_alone = None  # type: ignore[assignment]


@pytest.fixture
def make_scheduler(
    make_costs: Callable[..., CostModel], make_calibration: Callable[..., Calibration]
) -> Callable[..., Scheduler]:
    """Makes schedulers that learn each for itself."""

    def make(policy: Counting, lanes: int = 1) -> Scheduler:
        costs = make_costs(*[SEGMENT] * 3, growth=0.5, watts=4.0, lanes=lanes)
        view = ScheduledModel(costs, make_calibration(0.6, 0.7, 0.8, samples=2000), 8)
        scheduler = Scheduler(policy, policy, lanes)
        scheduler.learn_model("m", view)
        return scheduler

    return make


MakeScheduler = Callable[..., Scheduler]


def draw_tasks(make_task: MakeTask, random: Random, count: int) -> list[Task]:
    now, tasks = 0.0, []
    for id in range(count):
        now += random.choice([0.0, 0.004, 0.05, 0.2])
        tasks.append(
            make_task(
                id=id,
                tenant=random.choice("ab"),
                arrived=now,
                last=random.choice([1, 2]),
                deadline=random.choice([inf, now + 0.012, now + 0.025, now + 0.045, now + 0.5]),
                floor=random.random() < 0.3,
                joules_left=random.choice([inf, inf, 0.05, 0.2]),
                threshold=random.choice([None, 0.9]),
            )
        )
    return tasks


def play(scheduler: Scheduler, tasks: list[Task], random: Random) -> list[Any]:
    """Everything that happens to ``tasks`` on one lane."""
    seen: list[Any] = []
    coming = [replace(task) for task in tasks]
    running: Batch | None = None
    end = inf
    now = 0.0

    def begin(batch: Batch | None) -> float:
        if batch is None:
            return inf
        ids = [task.id for task in batch.tasks]
        waited = [task.waiting_since for task in batch.tasks]
        seen.append(("run", now, batch.key, ids, waited, batch.predicted))
        return now + batch.predicted * random.choice([0.9, 1.0, 1.0, 1.6])

    wake = inf
    while coming or running is not None or len(scheduler):
        now = min(end, wake, coming[0].arrived if coming else inf)
        started: Batch | None = None
        if now == end and running is not None:
            batch, running, end = running, None, inf
            took = now - batch.began
            leave = [task.segment == task.last or random.random() < 0.2 for task in batch.tasks]
            if leave == [False]:
                left = batch.tasks[0].joules_left - 0.04
                if scheduler.go_on(now, batch, took, 0.04, random.random(), left):
                    started = batch
            else:
                scheduler.ran(now, batch, took, took, 0.04)
                for task, leaves in zip(batch.tasks, leave, strict=True):
                    if leaves:
                        scheduler.end(now, task)
                        seen.append(("end", now, task.id))
                    else:
                        scheduler.resume(now, task, random.random(), task.joules_left - 0.04)
        while coming and coming[0].arrived <= now:
            task = coming.pop(0)
            scheduler.ahead(now, None, task.tenant, task.deadline)
            scheduler.add(now, task)
        if started is not None:
            running, end = started, begin(started)
        again = True
        while again:
            run, answer, overdue, refuse, wake, again = scheduler.next(now)
            for what, ended in (("answer", answer), ("overdue", overdue), ("refuse", refuse)):
                seen += [(what, now, task.id) for task in ended]
            if run is not None:
                running, end = run, begin(run)
    seen.append((scheduler.backlog(now), scheduler.shares.behind(now, "ab")))
    return seen


@pytest.mark.parametrize("seed", range(60))
def test_both_ways_decide_alike(
    make_scheduler: MakeScheduler, make_task: MakeTask, seed: int
) -> None:
    tasks = draw_tasks(make_task, Random(seed), 40)
    short, asked = Counting(), Asked()
    alike = play(make_scheduler(short), tasks, Random(seed))
    assert alike == play(make_scheduler(asked), tasks, Random(seed))
    assert short.asked < asked.asked


def first_exit(scheduler: Scheduler, task: Task, now: float = SEGMENT) -> Batch | None:
    """Let ``task`` reach its first exit at ``now``, and go on."""
    scheduler.add(0.0, task)
    batch = scheduler.next(0.0).run
    assert batch is not None
    return batch if scheduler.go_on(now, batch, None, None, 0.5) else None


def test_a_task_that_is_alone_starts_at_once(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    policy = Counting()
    scheduler, task = make_scheduler(policy), make_task()
    batch = first_exit(scheduler, task)
    assert batch is not None
    assert (batch.key.segment, batch.tasks, task.exit, task.confidence) == (1, (task,), 0, 0.5)
    assert (len(scheduler), scheduler.busy, policy.asked) == (0, 1, 0)
    scheduler.ran(2 * SEGMENT, batch, SEGMENT)
    scheduler.end(2 * SEGMENT, task)
    assert scheduler.busy == 0


def test_where_another_waits_the_policy_is_asked(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler, task, other = make_scheduler(Counting()), make_task(), make_task(deadline=0.05)
    scheduler.add(0.0, task)
    batch = scheduler.next(0.0).run
    assert batch is not None
    scheduler.add(0.0, other)
    assert not scheduler.go_on(SEGMENT, batch, None, None, 0.5)
    run = scheduler.next(SEGMENT).run
    assert run is not None
    assert run.tasks == (other,)


def test_beside_another_batch_the_policy_is_asked(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler, task, other = make_scheduler(Counting(), lanes=2), make_task(), make_task()
    scheduler.add(0.0, task)
    first = scheduler.next(0.0).run
    scheduler.add(0.0, other)
    second = scheduler.next(0.0).run
    assert first is not None
    assert second is not None
    assert not scheduler.go_on(SEGMENT, first, None, None, 0.5)
    assert task.id in scheduler


def test_a_task_that_is_late_is_not_started(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler, task = make_scheduler(Counting()), make_task(deadline=0.035)
    assert first_exit(scheduler, task, now=0.03) is None
    assert scheduler.next(0.03).overdue == (task,)


def test_a_segment_that_is_not_in_memory_is_waited_for(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    scheduler, task = make_scheduler(Counting()), make_task()
    scheduler.keep_resident("m", 1)
    assert first_exit(scheduler, task) is None
    assert scheduler.parked("m") == [task]


def test_a_policy_that_errs_about_it_is_asked_and_reported(
    make_scheduler: MakeScheduler, make_task: MakeTask
) -> None:
    class Erring(Counting):
        def runs_alone(self, now: float, task: Task, models: Any) -> bool:
            raise ZeroDivisionError

    scheduler, task = make_scheduler(Erring()), make_task()
    assert first_exit(scheduler, task) is None
    assert scheduler.next(SEGMENT).run is not None
    assert [failure.call for failure in scheduler.fetch_report()] == ["runs_alone"]
