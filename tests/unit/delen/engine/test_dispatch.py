"""The worker under dispatch policies: it does what they say, and contains what they do wrong."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from delen.core.bounds import Bounds
from delen.core.dispatch import Group, Key, ModelView, PolicyCapabilities, Ran, Task, Turn
from delen.engine.job import Job
from delen.errors import Draining, ModelLoading, Overloaded
from tests.unit.delen.engine.house import PATIENCE, SURE, UNSURE, House

Waiting = Mapping[Key, Group]
MakeHouse = Callable[..., House]


class Dispatch:
    """A dispatch policy that runs what ranks first; tests give it another ``choose``."""

    name = "tests"
    capabilities = PolicyCapabilities()

    def choose(self, now: float, waiting: Waiting, models: Mapping[str, ModelView]) -> Any:
        lead = min((group.first(1)[0] for group in waiting.values()), key=lambda task: task.rank)
        group = waiting[Key(lead.model, lead.segment)]
        return Turn(group.first(models[lead.model].max_batch))

    def ran(self, now: float, ran: Ran) -> None: ...
    def ended(self, now: float, task: Task) -> None: ...


class AnswersEarly(Dispatch):
    """Answers whatever has an answer."""

    def choose(self, now: float, waiting: Waiting, models: Mapping[str, ModelView]) -> Any:
        done = [task for group in waiting.values() for task in group if task.exit >= 0]
        return Turn(answer=done) if done else super().choose(now, waiting, models)


class Refuses(Dispatch):
    """Refuses whatever has a deadline."""

    def choose(self, now: float, waiting: Waiting, models: Mapping[str, ModelView]) -> Any:
        hurried = [t for group in waiting.values() for t in group if t.deadline < 1e9]
        return Turn(refuse=hurried) if hurried else super().choose(now, waiting, models)


def test_tenants_at_different_exits_join_one_batch(house: House) -> None:
    with house.held(0) as held:
        suspended = house.submit(UNSURE, tenant="a")
        held.wait_until_running()
        late = house.submit(UNSURE, Bounds(max_latency=PATIENCE), tenant="b")
        with house.held(0) as held_again:
            held.release()
            held_again.wait_until_running()
            assert (suspended.exit, late.exit) == (0, -1)
    for job in (suspended, late):
        assert job.future.result(PATIENCE).reason == "final"
    assert house.network.batches == [(0, 1), (0, 1), (1, 2), (2, 2)]


def test_an_answer_that_the_policy_sends_out_claims_the_accuracy_of_those_as_sure(
    make_house: MakeHouse,
) -> None:
    house = make_house(AnswersEarly())
    job = house.submit(UNSURE, Bounds(min_accuracy=0.7))
    result = job.future.result(PATIENCE)
    assert (result.exit, result.reason) == (0, "policy")
    accuracy = result.receipt.accuracy
    assert (accuracy.guarantee, accuracy.met) == (None, False)
    assert accuracy.expected == house.model.figures.accuracy_after(0, job.confidence, 0)
    assert accuracy.expected is not None
    assert accuracy.expected < house.planner.accuracies[0]
    free = house.infer(UNSURE, Bounds(max_energy=0.5)).receipt
    assert (free.accuracy.met, free.met) == (None, True)


def test_a_confident_answer_leaves_before_the_dispatch_policy_is_asked(
    make_house: MakeHouse,
) -> None:
    result = make_house(AnswersEarly()).infer(SURE, Bounds(min_accuracy=0.7))
    assert (result.reason, result.receipt.accuracy.guarantee) == ("confident", 0.95)


def test_a_job_that_cannot_reach_its_next_exit_is_answered_with_what_it_has(house: House) -> None:
    with house.held(0) as held:
        suspended = house.submit(UNSURE, Bounds(max_latency=0.045, min_accuracy=0.7))
        held.wait_until_running()
        urgent = house.submit(UNSURE, priority=1)
        with house.held(0) as held_again:
            held.release()
            held_again.wait_until_running()
            house.network.seconds[0] = 0.05
    result = suspended.future.result(PATIENCE)
    assert (result.exit, result.reason) == (0, "latency")
    accuracy = result.receipt.accuracy
    assert accuracy.expected == suspended.plan.cases[0].forced
    assert (accuracy.guarantee, accuracy.met) == (None, False)
    assert urgent.future.result(PATIENCE).reason == "final"


def test_what_the_policy_refuses_is_overload_unless_it_takes_the_best_effort(
    make_house: MakeHouse,
) -> None:
    house = make_house(Refuses())
    hurried = Bounds(max_latency=1.0)
    with pytest.raises(Overloaded, match="could not be started in time") as caught:
        house.infer(UNSURE, hurried)
    assert caught.value.retry_after >= 0
    result = house.infer(UNSURE, hurried, on_infeasible="best_effort")
    assert (result.exit, result.reason) == (2, "final")
    assert result.receipt.latency.bound == 1.0
    assert house.worker.jobs_of("tiny") == 0


def test_without_plans_jobs_run_to_the_deepest_exit(make_house: MakeHouse) -> None:
    class Unplanned(Dispatch):
        capabilities = PolicyCapabilities(plans=False)

    def fail(view: object) -> None:
        raise AssertionError("no exit policy is to be asked")

    house = make_house(Unplanned())
    house.model.policy.decide = fail  # type: ignore[method-assign]
    job = house.job(SURE, Bounds(max_energy=0.05))
    job.plan = house.model.plans.unplanned()
    house.worker.submit(job)
    result = job.future.result(PATIENCE)
    assert (result.exit, result.reason) == (2, "final")
    assert result.receipt.accuracy.expected == house.planner.accuracies[2]
    assert result.receipt.energy.met is False


def test_a_policy_that_waits_is_asked_again_when_it_said(make_house: MakeHouse) -> None:
    asked: list[float] = []

    class Waits(Dispatch):
        def choose(self, now: float, waiting: Waiting, models: Mapping[str, ModelView]) -> Any:
            asked.append(now)
            if len(asked) == 1:
                return Turn(wake=now + 0.01)
            return super().choose(now, waiting, models)

    house = make_house(Waits())
    assert house.infer(UNSURE).reason == "final"
    assert house.counts.dispatch_failures == 0
    assert len(asked) == 4


def raises(now: float, waiting: Waiting) -> Any:
    raise ZeroDivisionError("dispatch")


@pytest.mark.parametrize(
    "choose",
    [
        raises,
        lambda now, waiting: None,
        lambda now, waiting: "run",
        lambda now, waiting: Turn(),
        lambda now, waiting: Turn(run=[object()]),  # type: ignore[list-item]
        lambda now, waiting: Turn(run=[replace(next(iter(waiting.values())).first(1)[0], id=77)]),
        lambda now, waiting: Turn(run=[*next(iter(waiting.values())).first(1)] * 2),
        lambda now, waiting: Turn(answer=next(iter(waiting.values())).first(1)),
    ],
    ids=["raises", "none", "text", "waits for ever", "object", "stranger", "twice", "no answer"],
)
def test_a_dispatch_policy_that_talks_rubbish_is_replaced_by_the_default(
    make_house: MakeHouse,
    choose: Callable[[float, Waiting], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Rubbish(Dispatch):
        def choose(self, now: float, waiting: Waiting, models: Mapping[str, ModelView]) -> Any:
            first = next(iter(waiting.values())).first(1)[0]
            if first.exit >= 0:
                return super().choose(now, waiting, models)
            return choose(now, waiting)

    house = make_house(Rubbish())
    with caplog.at_level(logging.ERROR, "delen.engine"):
        for _ in range(3):
            assert house.infer(UNSURE).reason == "final"
    assert house.counts.dispatch_failures == 3
    assert len(caplog.records) == 1
    assert "'tests' failed in choose" in caplog.records[0].message


@pytest.mark.parametrize("call", ["ran", "ended"])
def test_a_dispatch_policy_that_fails_to_learn_is_contained(
    make_house: MakeHouse, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError("unknown")

    policy = Dispatch()
    setattr(policy, call, fail)
    house = make_house(policy)
    with caplog.at_level(logging.ERROR, "delen.engine"):
        for _ in range(3):
            assert house.infer(UNSURE).reason == "final"
        house.worker.close()
    assert len(caplog.records) == 1
    assert house.counts.dispatch_failures >= 2


def test_a_dispatch_policy_that_is_slow_is_given_up(
    make_house: MakeHouse, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(Dispatch):
        asked = 0

        def choose(self, now: float, waiting: Waiting, models: Mapping[str, ModelView]) -> Any:
            self.asked += 1
            house.clock.now += 0.05
            return super().choose(now, waiting, models)

    policy = Slow()
    house = make_house(policy)
    with caplog.at_level(logging.ERROR, "delen.engine"):
        for _ in range(4):
            assert house.infer(UNSURE).reason == "final"
    assert policy.asked == 3
    assert len(caplog.records) == 1
    assert "50 ms" in caplog.records[0].message


@pytest.mark.parametrize("call", ["ran", "ended"])
def test_a_dispatch_policy_to_which_telling_takes_long_is_given_up(
    make_house: MakeHouse, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[object] = []
    policy = Dispatch()
    house = make_house(policy)

    def slow(now: float, what: object) -> None:
        house.clock.now += 0.05
        told.append(what)

    setattr(policy, call, slow)
    with caplog.at_level(logging.ERROR, "delen.engine"):
        for _ in range(6):
            assert house.infer(UNSURE).reason == "final"
    assert len(told) == 4
    assert len(caplog.records) == 1
    assert "50 ms" in caplog.records[0].message
    assert house.scheduler.policy == "value"


def test_a_dispatch_policy_that_holds_everything_for_ever_is_overruled(
    make_house: MakeHouse,
) -> None:
    class Holds(Dispatch):
        def choose(self, now: float, waiting: Waiting, models: Mapping[str, ModelView]) -> Any:
            house.clock.now += 0.01
            return Turn(wake=now + 0.05)

    house = make_house(Holds())
    assert house.infer(UNSURE, Bounds(max_latency=0.5)).exit >= 0
    assert house.counts.dispatch_failures >= 1


def test_ten_thousand_cancellations_leave_nothing_behind(house: House) -> None:
    with house.held(0) as held:
        running = house.submit(UNSURE)
        held.wait_until_running()
        model_job = house.job(UNSURE)
        jobs: list[Job] = []
        for number in range(10_000):
            job = replace(model_job, id=1000 + number, request_id=f"c{number}")
            job.future = type(job.future)()
            house.worker.submit(job)
            jobs.append(job)
        together = threading.Barrier(4)

        def cancel(part: int) -> None:
            together.wait(PATIENCE)
            for job in jobs[part::4]:
                house.worker.cancel(job)

        with ThreadPoolExecutor(4) as cancellers:
            list(cancellers.map(cancel, range(4)))
        assert house.worker.jobs_of("tiny") == 1
    assert all(isinstance(job.future.exception(PATIENCE), Draining) for job in jobs)
    assert running.future.result(PATIENCE).reason == "final"
    assert house.infer(SURE).reason == "confident"
    assert house.worker.drain(PATIENCE)
    assert len(house.scheduler) == 0


def test_a_model_is_removed_only_where_no_job_needs_it(house: House) -> None:
    with house.held(0) as held:
        job = house.submit(UNSURE)
        held.wait_until_running()
        assert house.worker.remove_model("tiny") == 1
    assert job.future.result(PATIENCE).reason == "final"
    assert house.worker.drain(PATIENCE)
    assert house.worker.remove_model("tiny") == 0
    assert house.worker.remove_model("tiny") == 0
    with pytest.raises(ModelLoading, match="is not loaded"):
        house.submit(UNSURE)
    house.worker.add_model(house.model)
    assert house.infer(UNSURE).reason == "final"
