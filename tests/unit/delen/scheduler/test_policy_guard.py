"""Policies that raise, return rubbish or take long."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest

from delen.core.dispatch import PolicyCapabilities, Ran, Task, Turn
from delen.scheduler.core import Scheduler
from delen.scheduler.model_view import ScheduledModel
from delen.scheduler.policy_guard import BUDGET, InRank

MakeTask = Callable[..., Task]
Choose = Callable[[Any], object]


class Scripted:
    """Says what ``choose`` makes of the waiting groups."""

    name = "scripted"
    capabilities = PolicyCapabilities(guards=False)

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self.asked = 0
        self.saw: list[object] = []

    def choose(self, now: float, waiting: Any, models: Any) -> Any:
        self.asked += 1
        return self._choose([list(group) for group in waiting.values()])

    def ran(self, now: float, ran: Ran) -> None:
        self.saw.append(ran)

    def ended(self, now: float, task: Task) -> None:
        self.saw.append(task)


def scheduler_with(choose: Choose, view: ScheduledModel) -> tuple[Scheduler, Scripted]:
    policy = Scripted(choose)
    scheduler = Scheduler(policy, InRank())
    scheduler.learn_model("m", view)
    return scheduler, policy


def fail(groups: Any) -> object:
    raise RuntimeError("the policy is broken")


def leave(groups: Any) -> object:
    raise SystemExit(1)


def change(groups: Any) -> object:
    groups[0][0].segment = 7
    return Turn(run=groups[0][:1])


FOREIGN = Task(10_000, "m", "t", 0.0, 0, 2)
RUBBISH: dict[str, Choose] = {
    "it raises": fail,
    "it ends the process": leave,
    "it changes a task": change,
    "a generator": lambda groups: Turn(run=(task for task in groups[0][:1])),  # type: ignore[arg-type]
    "to refuse by a generator": lambda groups: Turn(refuse=iter(groups[0])),  # type: ignore[arg-type]
    "nothing": lambda groups: None,
    "no turn": lambda groups: "run them all",
    "a task that does not wait": lambda groups: Turn(run=[FOREIGN]),
    "what is no task": lambda groups: Turn(run=[1]),  # type: ignore[list-item]
    "no sequence": lambda groups: Turn(run=5),  # type: ignore[arg-type]
    "one task twice": lambda groups: Turn(run=[groups[0][0], groups[0][0]]),
    "run and answer": lambda groups: Turn(run=[groups[0][0]], refuse=[groups[0][0]]),
    "two groups": lambda groups: Turn(run=[groups[0][0], groups[1][0]]),
    "too many": lambda groups: Turn(run=groups[0]),
    "an answer of none": lambda groups: Turn(answer=[groups[0][0]]),
    "to refuse what has an answer": lambda groups: Turn(refuse=[groups[1][0]]),
    "to wait for ever": lambda groups: Turn(),
    "to wait for the past": lambda groups: Turn(wake=-1.0),
    "to wait for no time": lambda groups: Turn(wake=nan),
}


@pytest.mark.parametrize("choose", RUBBISH.values(), ids=RUBBISH.keys())
def test_rubbish_is_counted_and_the_default_decides(
    choose: Choose, view: ScheduledModel, make_task: MakeTask
) -> None:
    scheduler, policy = scheduler_with(choose, view)
    tasks = [make_task() for _ in range(20)]
    for task in [*tasks, make_task(segment=1, exit=0)]:
        scheduler.add(0.0, task)
    decision = scheduler.next(0.0)
    assert decision.run is not None
    assert decision.run.tasks == tuple(tasks[:8])
    assert scheduler.failures == 1
    (failure,) = scheduler.fetch_report()
    assert failure.policy == "scripted"
    assert failure.call == "choose"
    assert failure.problem
    scheduler.ran(0.1, decision.run, 0.1)
    scheduler.next(0.1)
    assert policy.asked == 2
    assert scheduler.failures == 2
    assert scheduler.fetch_report() == [], "it is reported once"


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_what_raises_when_told_is_contained_too(
    error: type[BaseException], view: ScheduledModel, make_task: MakeTask
) -> None:
    class Deaf(InRank):
        name = "deaf"

        def ran(self, now: float, ran: Ran) -> None:
            raise error("not now")

        def ended(self, now: float, task: Task) -> None:
            raise error("nor now")

    scheduler = Scheduler(Deaf(), InRank())
    scheduler.learn_model("m", view)
    task = make_task()
    scheduler.add(0.0, task)
    batch = scheduler.next(0.0).run
    assert batch is not None
    scheduler.ran(0.1, batch, 0.1)
    scheduler.end(0.1, task)
    assert scheduler.failures == 2
    assert [failure.call for failure in scheduler.fetch_report()] == ["ran"]


def test_a_default_that_fails_as_well_leaves_the_order_of_rank(
    view: ScheduledModel, make_task: MakeTask
) -> None:
    scheduler = Scheduler(Scripted(fail), Scripted(fail))
    scheduler.learn_model("m", view)
    late, early = make_task(deadline=2.0), make_task(deadline=1.0)
    scheduler.add(0.0, late)
    scheduler.add(0.0, early)
    decision = scheduler.next(0.0)
    assert decision.run is not None
    assert decision.run.tasks == (early, late)
    assert scheduler.failures == 2


def test_a_policy_that_takes_50_ms_is_given_up(view: ScheduledModel, make_task: MakeTask) -> None:
    scheduler, policy = scheduler_with(lambda groups: Turn(run=groups[0][:1]), view)
    assert scheduler.capabilities == Scripted.capabilities
    for _ in range(5):
        scheduler.add(0.0, make_task())
        batch = scheduler.next(0.0).run
        assert batch is not None
        scheduler.decision_took(0.05)
        scheduler.ran(0.0, batch, 0.01)
        scheduler.end(0.0, batch.tasks[0])
    assert policy.asked == 3
    assert scheduler.failures == 3
    assert scheduler.policy == "in_rank"
    assert scheduler.capabilities == PolicyCapabilities()
    (failure,) = scheduler.fetch_report()
    assert "50 ms" in failure.problem


@pytest.mark.parametrize("every", [20, 400])
def test_decisions_that_were_slow_now_and_then_are_forgiven(
    view: ScheduledModel, make_task: MakeTask, every: int
) -> None:
    scheduler, policy = scheduler_with(lambda groups: Turn(run=groups[0][:1]), view)
    for number in range(2000):
        scheduler.add(0.0, make_task())
        batch = scheduler.next(0.0).run
        assert batch is not None
        scheduler.decision_took(0.05 if number % every == 0 else BUDGET / 2)
        scheduler.ran(0.0, batch, 0.01)
        scheduler.end(0.0, batch.tasks[0])
    assert policy.asked == 2000
    assert scheduler.policy == "scripted"


def test_a_policy_is_asked_again_though_it_wants_to_wait_for_an_hour(
    view: ScheduledModel, make_task: MakeTask
) -> None:
    scheduler, _ = scheduler_with(lambda groups: Turn(wake=3600.0), view)
    scheduler.add(0.0, make_task(deadline=inf))
    decision = scheduler.next(0.0)
    assert decision.run is None
    assert decision.wake == 1.0


def test_a_key_press_is_not_caught(view: ScheduledModel, make_task: MakeTask) -> None:
    def interrupt(groups: Any) -> object:
        raise KeyboardInterrupt

    scheduler, _ = scheduler_with(interrupt, view)
    scheduler.add(0.0, make_task())
    with pytest.raises(KeyboardInterrupt):
        scheduler.next(0.0)


def test_what_is_held_back_again_and_again_runs_after_a_second(
    view: ScheduledModel, make_task: MakeTask
) -> None:
    """It says each time that it wants to be asked in 50 ms."""
    now = [0.0]
    scheduler, policy = scheduler_with(lambda groups: Turn(wake=now[0] + 0.05), view)
    task = make_task()
    scheduler.add(0.0, task)
    while (decision := scheduler.next(now[0])).run is None:
        now[0] = decision.wake
    assert now[0] == pytest.approx(1.0)
    assert policy.asked == 21
    assert decision.run.tasks == (task,)
    assert scheduler.failures == 1
    scheduler.ran(1.1, decision.run, 0.1)
    scheduler.end(1.1, task)
    now[0] = 5.0
    scheduler.add(5.0, make_task())
    assert scheduler.next(5.0).run is None, "another second begins"


def test_nothing_is_held_back_beyond_the_time_when_it_has_to_start(
    view: ScheduledModel, make_task: MakeTask
) -> None:
    now = [0.0]
    scheduler, _ = scheduler_with(lambda groups: Turn(wake=now[0] + 0.5), view)
    gone, urgent = make_task(deadline=0.05), make_task(deadline=0.1)
    scheduler.add(0.0, make_task())
    scheduler.add(0.0, gone)
    assert scheduler.next(0.0).wake == pytest.approx(0.04)
    scheduler.remove(0.0, gone.id)
    assert scheduler.next(0.0).wake == pytest.approx(0.5)
    scheduler.add(0.0, urgent)
    decision = scheduler.next(0.0)
    assert decision.wake == pytest.approx(0.09)
    now[0] = decision.wake
    run = scheduler.next(now[0]).run
    assert run is not None
    assert urgent in run.tasks
    assert scheduler.failures == 1


def test_a_delay_ends_when_nothing_waits_any_more(
    view: ScheduledModel, make_task: MakeTask
) -> None:
    now = [0.0]
    scheduler, _ = scheduler_with(lambda groups: Turn(wake=now[0] + 0.05), view)
    cancelled = make_task()
    scheduler.add(0.0, cancelled)
    scheduler.next(0.0)
    scheduler.remove(0.1, cancelled.id)
    now[0] = 7.0
    scheduler.add(7.0, make_task())
    assert scheduler.next(7.0).run is None
    assert scheduler.failures == 0


def test_to_wait_for_the_past_is_rubbish_while_another_lane_runs_too(
    view: ScheduledModel, make_task: MakeTask
) -> None:
    turns = [Turn(run=[]), Turn(wake=1.0)]
    scheduler = Scheduler(Scripted(lambda groups: turns.pop()), InRank(), lanes=2)
    scheduler.learn_model("m", view)
    scheduler.add(1.0, make_task())
    scheduler.add(1.0, make_task(segment=1, exit=0))
    assert scheduler.next(1.0).run is not None
    assert scheduler.failures == 1
    waits = scheduler.next(1.0)
    assert waits.run is None, "the end of the batch that runs is awaited"
    assert waits.wake == 2.0
    assert scheduler.failures == 1


def test_a_policy_to_which_telling_takes_50_ms_is_given_up(
    view: ScheduledModel, make_task: MakeTask
) -> None:
    scheduler, policy = scheduler_with(lambda groups: Turn(run=groups[0][:1]), view)
    for _ in range(8):
        scheduler.add(0.0, make_task())
        batch = scheduler.next(0.0).run
        assert batch is not None
        scheduler.decision_took(BUDGET / 2)
        scheduler.ran(0.0, batch, 0.01)
        scheduler.reporting_took(0.05)
        scheduler.end(0.0, batch.tasks[0])
        scheduler.reporting_took(BUDGET / 2)
    assert policy.asked == 4
    assert scheduler.failures == 4
    (failure,) = scheduler.fetch_report()
    assert "50 ms" in failure.problem
