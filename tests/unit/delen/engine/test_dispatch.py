"""The executor under dispatch policies: it does what they say, and contains what they do wrong."""

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
from delen.scheduler.batching_delay import LONGEST_DELAY
from tests.unit.delen.engine.harness import PATIENCE, SURE, UNSURE, ExecutorHarness

Waiting = Mapping[Key, Group]
MakeHarness = Callable[..., ExecutorHarness]


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


def test_tenants_at_different_exits_join_one_batch(harness: ExecutorHarness) -> None:
    with harness.held(0) as held:
        suspended = harness.submit(UNSURE, tenant="a")
        held.wait_until_running()
        late = harness.submit(UNSURE, Bounds(max_latency=PATIENCE), tenant="b")
        with harness.held(0) as held_again:
            held.release()
            held_again.wait_until_running()
            assert (suspended.exit, late.exit) == (0, -1)
    for job in (suspended, late):
        assert job.future.result(PATIENCE).reason == "final"
    assert harness.network.batches == [(0, 1), (0, 1), (1, 2), (2, 2)]


def test_an_answer_that_the_policy_sends_out_claims_the_accuracy_of_those_as_sure(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(AnswersEarly())
    job = harness.submit(UNSURE, Bounds(min_accuracy=0.7))
    result = job.future.result(PATIENCE)
    assert (result.exit, result.reason) == (0, "policy")
    accuracy = result.receipt.accuracy
    assert (accuracy.guarantee, accuracy.met) == (None, False)
    assert accuracy.expected == harness.model.view.accuracy_after(0, job.confidence, 0)
    assert accuracy.expected is not None
    assert accuracy.expected < harness.planner.accuracies[0]
    free = harness.infer(UNSURE, Bounds(max_energy=0.5)).receipt
    assert (free.accuracy.met, free.met) == (None, True)


def test_a_confident_answer_leaves_before_the_dispatch_policy_is_asked(
    make_harness: MakeHarness,
) -> None:
    result = make_harness(AnswersEarly()).infer(SURE, Bounds(min_accuracy=0.7))
    assert (result.reason, result.receipt.accuracy.guarantee) == ("confident", 0.95)


def test_a_job_that_cannot_reach_its_next_exit_is_answered_with_what_it_has(
    harness: ExecutorHarness,
) -> None:
    with harness.held(0) as held:
        suspended = harness.submit(UNSURE, Bounds(max_latency=0.065, min_accuracy=0.7))
        held.wait_until_running()
        urgent = harness.submit(UNSURE, Bounds(max_latency=0.06, min_accuracy=0.7))
        with harness.held(0) as held_again:
            held.release()
            held_again.wait_until_running()
            harness.network.seconds[0] = 0.05
    result = suspended.future.result(PATIENCE)
    assert (result.exit, result.reason) == (0, "latency")
    accuracy = result.receipt.accuracy
    assert accuracy.expected == suspended.plan.cases[0].forced
    assert (accuracy.guarantee, accuracy.met) == (None, False)
    assert urgent.future.result(PATIENCE).reason == "latency"


def test_what_the_policy_refuses_is_overload_unless_it_takes_the_best_effort(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(Refuses())
    hurried = Bounds(max_latency=1.0)
    with pytest.raises(Overloaded, match="could not be started in time") as caught:
        harness.infer(UNSURE, hurried)
    assert caught.value.retry_after >= 0
    result = harness.infer(UNSURE, hurried, on_infeasible="best_effort")
    assert (result.exit, result.reason) == (2, "final")
    assert result.receipt.latency.bound == 1.0
    assert harness.executor.jobs_of("tiny") == 0


def test_without_plans_jobs_run_to_the_deepest_exit(make_harness: MakeHarness) -> None:
    class Unplanned(Dispatch):
        capabilities = PolicyCapabilities(plans=False)

    def fail(view: object) -> None:
        raise AssertionError("no exit policy is to be asked")

    harness = make_harness(Unplanned())
    harness.model.policy.decide = fail  # type: ignore[method-assign]
    job = harness.job(SURE, Bounds(max_energy=0.05))
    job.plan = harness.model.plans.unplanned()
    harness.executor.submit(job, harness.clock.now)
    result = job.future.result(PATIENCE)
    assert (result.exit, result.reason) == (2, "final")
    assert result.receipt.accuracy.expected == harness.planner.accuracies[2]
    assert result.receipt.energy.met is False


def test_a_policy_that_waits_is_asked_again_when_it_said(make_harness: MakeHarness) -> None:
    asked: list[float] = []

    class Waits(Dispatch):
        def choose(self, now: float, waiting: Waiting, models: Mapping[str, ModelView]) -> Any:
            asked.append(now)
            if len(asked) == 1:
                return Turn(wake=now + 0.01)
            return super().choose(now, waiting, models)

    harness = make_harness(Waits())
    assert harness.infer(UNSURE).reason == "final"
    assert harness.observer.dispatch_failures == 0
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
    make_harness: MakeHarness,
    choose: Callable[[float, Waiting], Any],
    caplog: pytest.LogCaptureFixture,
    failed: Callable[[str], int],
) -> None:
    class Rubbish(Dispatch):
        def choose(self, now: float, waiting: Waiting, models: Mapping[str, ModelView]) -> Any:
            first = next(iter(waiting.values())).first(1)[0]
            if first.exit >= 0:
                return super().choose(now, waiting, models)
            return choose(now, waiting)

    harness = make_harness(Rubbish())
    with caplog.at_level(logging.ERROR, "delen.engine"):
        for _ in range(3):
            assert harness.infer(UNSURE).reason == "final"
    assert harness.observer.dispatch_failures == failed("dispatch_policy") == 3
    assert len(caplog.records) == 1
    assert "'tests' failed in choose" in caplog.records[0].message


@pytest.mark.parametrize("call", ["ran", "ended"])
def test_a_dispatch_policy_that_fails_to_learn_is_contained(
    make_harness: MakeHarness, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError("unknown")

    policy = Dispatch()
    setattr(policy, call, fail)
    harness = make_harness(policy)
    with caplog.at_level(logging.ERROR, "delen.engine"):
        for _ in range(3):
            assert harness.infer(UNSURE).reason == "final"
        harness.executor.close()
    assert len(caplog.records) == 1
    assert harness.observer.dispatch_failures >= 2


def test_a_dispatch_policy_that_is_slow_is_given_up(
    make_harness: MakeHarness, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(Dispatch):
        asked = 0

        def choose(self, now: float, waiting: Waiting, models: Mapping[str, ModelView]) -> Any:
            self.asked += 1
            harness.clock.now += 0.05
            return super().choose(now, waiting, models)

    policy = Slow()
    harness = make_harness(policy)
    with caplog.at_level(logging.ERROR, "delen.engine"):
        for _ in range(4):
            assert harness.infer(UNSURE).reason == "final"
    assert policy.asked == 3
    assert len(caplog.records) == 1
    assert "50 ms" in caplog.records[0].message


@pytest.mark.parametrize("call", ["ran", "ended"])
def test_a_dispatch_policy_to_which_telling_takes_long_is_given_up(
    make_harness: MakeHarness, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[object] = []
    policy = Dispatch()
    harness = make_harness(policy)

    def slow(now: float, what: object) -> None:
        harness.clock.now += 0.05
        told.append(what)

    setattr(policy, call, slow)
    with caplog.at_level(logging.ERROR, "delen.engine"):
        for _ in range(6):
            assert harness.infer(UNSURE).reason == "final"
    assert len(told) == 4
    assert len(caplog.records) == 1
    assert "50 ms" in caplog.records[0].message
    assert harness.scheduler.policy == "value"


def test_a_dispatch_policy_that_holds_everything_for_ever_is_overruled(
    make_harness: MakeHarness,
) -> None:
    """None of its decisions is slow, so that it is not given up."""

    class Holds(Dispatch):
        def choose(self, now: float, waiting: Waiting, models: Mapping[str, ModelView]) -> Any:
            harness.clock.now += 0.004
            return Turn(wake=now + 0.004)

    harness = make_harness(Holds())
    result = harness.infer(UNSURE)
    assert (result.exit, result.reason) == (2, "final")
    assert 3 <= result.receipt.latency.value / LONGEST_DELAY < 3.1
    assert harness.observer.dispatch_failures == 3
    assert harness.scheduler.policy == "tests"


def test_ten_thousand_cancellations_leave_nothing_behind(harness: ExecutorHarness) -> None:
    with harness.held(0) as held:
        running = harness.submit(UNSURE)
        held.wait_until_running()
        model_job = harness.job(UNSURE)
        jobs: list[Job] = []
        for number in range(10_000):
            job = replace(model_job, id=1000 + number, request_id=f"c{number}")
            job.plan, job.future = model_job.plan, type(job.future)()
            harness.executor.submit(job, harness.clock.now)
            jobs.append(job)
        together = threading.Barrier(4)

        def cancel(part: int) -> None:
            together.wait(PATIENCE)
            for job in jobs[part::4]:
                harness.executor.cancel(job)

        with ThreadPoolExecutor(4) as cancellers:
            list(cancellers.map(cancel, range(4)))
        assert harness.executor.jobs_of("tiny") == 1
    assert all(isinstance(job.future.exception(PATIENCE), Draining) for job in jobs)
    assert running.future.result(PATIENCE).reason == "final"
    assert harness.infer(SURE).reason == "confident"
    assert harness.executor.drain(PATIENCE)
    assert len(harness.scheduler) == 0


def test_a_model_is_removed_only_where_no_job_needs_it(harness: ExecutorHarness) -> None:
    with harness.held(0) as held:
        job = harness.submit(UNSURE)
        held.wait_until_running()
        assert harness.executor.remove_model("tiny") == 1
    assert job.future.result(PATIENCE).reason == "final"
    assert harness.executor.drain(PATIENCE)
    assert harness.executor.remove_model("tiny") == 0
    assert harness.executor.remove_model("tiny") == 0
    with pytest.raises(ModelLoading, match="is not loaded"):
        harness.submit(UNSURE)
    harness.executor.add_model(harness.model)
    assert harness.infer(UNSURE).reason == "final"
