"""The executor with a network whose answers, and whose time, a test chooses."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest

from delen.core.bounds import Bounds
from delen.core.plan import GO_ON, Decision, ExitView
from delen.engine.energy_admission import UnlimitedEnergy
from delen.errors import BackendError, Draining, ModelLoading
from policies.exit.bounds import BoundsPolicy
from tests.builders.daemon import wait_until
from tests.unit.delen.engine.harness import PATIENCE, SURE, UNSURE, ExecutorHarness


def test_a_confident_answer_leaves_at_once(harness: ExecutorHarness) -> None:
    result = harness.infer(SURE)
    assert (result.exit, result.exits, result.reason) == (0, 3, "confident")
    assert harness.network.batches == [(0, 1)]
    assert result.index == 0
    assert result.label == "class 0"


def test_an_unsure_answer_goes_to_the_end(harness: ExecutorHarness) -> None:
    result = harness.infer(UNSURE)
    assert (result.exit, result.reason) == (2, "final")
    assert [segment for segment, _ in harness.network.batches] == [0, 1, 2]
    assert result.index == 2


def test_a_cap_ends_where_it_was_planned_to(harness: ExecutorHarness) -> None:
    result = harness.infer(SURE, Bounds(max_energy=0.09))
    assert (result.exit, result.reason) == (1, "planned_exit")
    energy = result.receipt.energy
    assert (energy.value, energy.predicted) == pytest.approx((0.08, 0.08))
    assert (energy.kind, energy.source, energy.met) == ("estimated", "test", True)


def test_a_receipt_tells_waiting_from_running(harness: ExecutorHarness) -> None:
    job = harness.job(UNSURE, Bounds(max_latency=0.5))
    harness.clock.now += 0.2
    harness.executor.submit(job, harness.clock.now)
    latency = job.future.result(PATIENCE).receipt.latency
    assert latency.queue == pytest.approx(0.2)
    assert latency.value == pytest.approx(0.23)
    assert latency.predicted == pytest.approx(0.03)
    assert (latency.bound, latency.met) == (0.5, True)


def test_going_on_is_not_tried_where_it_would_be_late(harness: ExecutorHarness) -> None:
    harness.network.seconds[0] = 0.012
    result = harness.infer(UNSURE, Bounds(max_latency=0.031))
    assert (result.exit, result.reason) == (1, "latency")
    assert result.receipt.latency.met is True
    assert result.receipt.accuracy.met is None
    assert result.receipt.met


def test_a_miss_is_told_and_answered_with_the_best_so_far(harness: ExecutorHarness) -> None:
    harness.network.seconds[0] = 0.050
    result = harness.infer(UNSURE, Bounds(max_latency=0.031, min_accuracy=0.7))
    assert (result.exit, result.reason) == (0, "latency")
    receipt = result.receipt
    assert (receipt.latency.met, receipt.accuracy.met, receipt.met) == (False, False, False)
    assert receipt.latency.value == pytest.approx(0.050)
    assert receipt.accuracy.guarantee is None


def test_expected_accuracy_is_that_of_the_answers_own_case(harness: ExecutorHarness) -> None:
    bounds = Bounds(max_latency=0.031, min_accuracy=0.8)
    plan = harness.job(bounds=bounds).plan
    assert plan.threshold is not None
    confident, planned = harness.infer(SURE, bounds), harness.infer(UNSURE, bounds)
    harness.network.seconds[0] = 0.050
    forced = harness.infer(UNSURE, bounds)
    assert [r.reason for r in (confident, planned, forced)] == ["confident", "final", "latency"]
    told = [r.receipt.accuracy.expected for r in (confident, planned, forced)]
    assert told == [plan.cases[0].confident, plan.cases[2].planned, plan.cases[0].forced]
    high, _, low = told
    overall = harness.planner.accuracies[0]
    assert high is not None
    assert low is not None
    assert low < overall < high
    assert [r.receipt.accuracy.guarantee for r in (confident, planned, forced)] == [
        0.95,
        0.95,
        None,
    ]
    assert [r.receipt.accuracy.met for r in (confident, planned, forced)] == [True, True, False]
    assert {r.receipt.accuracy.overall for r in (confident, planned, forced)} == {plan.accuracy}


def test_jobs_of_one_batch_leave_by_their_own_bounds(harness: ExecutorHarness) -> None:
    with harness.held(0) as held:
        first = harness.submit(UNSURE)
        held.wait_until_running()
        cheap, floor, free = (
            harness.submit(UNSURE, Bounds(max_energy=0.05)),
            harness.submit(SURE, Bounds(min_accuracy=0.7)),
            harness.submit(UNSURE, Bounds(max_energy=0.09)),
        )
    ends = {
        name: (result.exit, result.reason)
        for name, job in {"first": first, "cheap": cheap, "floor": floor, "free": free}.items()
        if (result := job.future.result(PATIENCE))
    }
    assert ends == {
        "first": (2, "final"),
        "cheap": (0, "planned_exit"),
        "floor": (0, "confident"),
        "free": (1, "planned_exit"),
    }
    assert (0, 3) in harness.network.batches


def test_a_shared_batch_shares_its_energy(harness: ExecutorHarness) -> None:
    with harness.held(0) as held:
        harness.submit(SURE)
        held.wait_until_running()
        pair = [harness.submit(SURE), harness.submit(SURE)]
    for job in pair:
        assert job.future.result(PATIENCE).receipt.energy.value == pytest.approx(0.02)


def test_a_cancelled_job_answers_at_the_end_of_its_segment(harness: ExecutorHarness) -> None:
    with harness.held(1) as held:
        job = harness.submit(UNSURE, Bounds(min_accuracy=0.7))
        held.wait_until_running()
        harness.executor.cancel(job)
        assert not job.future.done()
    result = job.future.result(PATIENCE)
    assert (result.exit, result.reason) == (1, "cancelled")
    assert result.receipt.accuracy.expected == job.plan.cases[1].forced
    assert result.receipt.accuracy.met is False
    assert [segment for segment, _ in harness.network.batches] == [0, 1]


def test_a_cancelled_answer_that_was_confident_is_told_as_such(harness: ExecutorHarness) -> None:
    with harness.held(0) as held:
        job = harness.submit(SURE, Bounds(min_accuracy=0.7))
        held.wait_until_running()
        harness.executor.cancel(job)
    accuracy = job.future.result(PATIENCE).receipt.accuracy
    assert accuracy.expected == job.plan.cases[0].confident
    assert (accuracy.guarantee, accuracy.met) == (0.95, True)


def test_a_job_cancelled_before_it_ran_has_no_answer(harness: ExecutorHarness) -> None:
    with harness.held(0) as held:
        running = harness.submit(UNSURE)
        held.wait_until_running()
        waiting = harness.submit(UNSURE)
        harness.executor.cancel(waiting)
        with pytest.raises(Draining):
            waiting.future.result(PATIENCE)
    assert running.future.result(PATIENCE).reason == "final"


def test_a_suspended_job_that_is_cancelled_answers_at_once(harness: ExecutorHarness) -> None:
    with harness.held(0) as held:
        suspended = harness.submit(UNSURE)
        held.wait_until_running()
        urgent = harness.submit(UNSURE, Bounds(max_latency=1.0))
        with harness.held(0) as held_again:
            held.release()
            held_again.wait_until_running()  # the urgent one, before the other's segment 1
            harness.executor.cancel(suspended)
            result = suspended.future.result(PATIENCE)
    assert (result.exit, result.reason) == (0, "cancelled")
    assert urgent.future.result(PATIENCE).reason == "final"


def fail_at(segment: int) -> Callable[[int], None]:
    def before(running: int) -> None:
        if running == segment:
            raise RuntimeError("out of memory")

    return before


def test_a_network_that_fails_fails_its_jobs_alone(
    harness: ExecutorHarness, failed: Callable[[str], int]
) -> None:
    harness.network.before = fail_at(0)
    job = harness.submit(UNSURE)
    with pytest.raises(BackendError, match="segment 0: out of memory"):
        job.future.result(PATIENCE)
    harness.network.before = lambda segment: None
    assert harness.infer(UNSURE).reason == "final"
    assert failed("segment") == 1


def test_an_answer_is_never_lost_to_a_later_failure(harness: ExecutorHarness) -> None:
    harness.network.before = fail_at(1)
    result = harness.infer(UNSURE, Bounds(min_accuracy=0.7))
    assert (result.exit, result.reason) == (0, "failed")
    assert result.receipt.accuracy.met is False
    assert harness.observer.segment_failures == [("tiny", 1)]
    assert harness.infer(SURE).reason == "confident"


class Policy:
    def __init__(self, decide: Callable[[ExitView], Any]) -> None:
        self.decide = decide


def raising(view: ExitView) -> Any:
    raise ZeroDivisionError("policy")


@pytest.mark.parametrize(
    "decide",
    [
        raising,
        lambda view: None,
        lambda view: "stop",
        lambda view: True,
        lambda view: Decision("bored"),  # type: ignore[arg-type]
        lambda view: Decision(3),  # type: ignore[arg-type]
        lambda view: Decision([]),  # type: ignore[arg-type]
    ],
    ids=["raises", "none", "text", "bool", "unknown reason", "number", "unhashable"],
)
def test_a_policy_that_talks_rubbish_is_replaced_by_the_default(
    harness: ExecutorHarness,
    decide: Callable[[ExitView], Any],
    caplog: pytest.LogCaptureFixture,
    failed: Callable[[str], int],
) -> None:
    harness.use(Policy(decide))
    with caplog.at_level(logging.ERROR, "delen.engine"):
        assert harness.infer(SURE).reason == "confident"
        assert harness.infer(UNSURE).reason == "final"
    assert harness.observer.policy_failures == failed("exit_policy") == 4
    assert len(caplog.records) == 1


def test_a_policy_that_never_stops_ends_with_its_plan(harness: ExecutorHarness) -> None:
    harness.use(Policy(lambda view: GO_ON))
    assert harness.infer(SURE).reason == "final"
    result = harness.infer(SURE, Bounds(max_energy=0.09))
    assert (result.exit, result.reason) == (1, "planned_exit")
    assert harness.observer.policy_failures == 2


def test_a_policys_own_stop_claims_no_accuracy(harness: ExecutorHarness) -> None:
    harness.use(Policy(lambda view: Decision("policy")))
    accuracy = harness.infer(SURE, Bounds(min_accuracy=0.7)).receipt.accuracy
    assert (accuracy.expected, accuracy.guarantee, accuracy.met) == (None, None, False)


def test_a_policy_that_calls_an_unsure_answer_confident_is_not_certified(
    harness: ExecutorHarness,
) -> None:
    harness.use(Policy(lambda view: Decision("confident")))
    job = harness.submit(UNSURE, Bounds(min_accuracy=0.7))
    accuracy = job.future.result(PATIENCE).receipt.accuracy
    assert (accuracy.guarantee, accuracy.met) == (None, False)
    assert accuracy.expected == job.plan.cases[0].forced


def test_a_policy_sees_the_job_as_it_is(harness: ExecutorHarness) -> None:
    views: list[ExitView] = []

    def look(view: ExitView) -> Decision:
        views.append(view)
        return BoundsPolicy().decide(view)

    harness.use(Policy(look))
    harness.infer((0.1, 0.2, 0.3), Bounds(max_latency=0.5))
    assert [view.exit for view in views] == [0, 1, 2]
    assert [view.next_exit for view in views] == [1, 2, None]
    assert [view.elapsed for view in views] == pytest.approx([0.01, 0.02, 0.03])
    assert [view.energy for view in views] == pytest.approx([0.04, 0.08, 0.12])
    assert [view.energy_at_next for view in views] == pytest.approx([0.08, 0.12, 0.12])
    assert [view.time_to_next for view in views] == pytest.approx([0.01, 0.01, 0.0])
    assert [view.confidence for view in views] == pytest.approx([0.1, 0.2, 0.3])
    assert [view.macs for view in views] == [1000, 2000, 3000]


def ahead(harness: ExecutorHarness, priority: int) -> float:
    with harness.executor.lock:
        return harness.scheduler.admit(harness.clock.now, "default", priority, inf)


def test_what_is_ahead_is_what_runs_and_what_cannot_be_left_out_before(
    harness: ExecutorHarness,
) -> None:
    assert ahead(harness, 9) == 0
    with harness.held(0) as held:
        harness.submit(UNSURE)
        held.wait_until_running()
        assert ahead(harness, 1) == pytest.approx(0.01)
        harness.submit(UNSURE, priority=3)
        assert ahead(harness, 1) == pytest.approx(0.01)
        assert ahead(harness, 3) == pytest.approx(0.02)
        assert harness.executor.jobs_of("tiny") == 2
        assert harness.executor.jobs_of("other") == 0


def test_requests_are_admitted_while_exit_policies_decide(harness: ExecutorHarness) -> None:
    seen: list[float] = []

    def look(view: ExitView) -> Decision:
        seen.append(ahead(harness, 9))
        return BoundsPolicy().decide(view)

    harness.use(Policy(look))
    assert harness.infer(UNSURE).reason == "final"
    assert seen == [0.0, 0.0, 0.0]
    assert harness.observer.policy_failures == 0


def test_what_segments_take_is_learnt(harness: ExecutorHarness) -> None:
    harness.network.seconds = [0.02, 0.02, 0.02]
    for _ in range(40):
        harness.infer(UNSURE)
    assert harness.model.costs.slowdown.mean == pytest.approx(2, rel=0.05)
    assert [(work.model, work.segment, work.batch) for work in harness.observer.works[:3]] == [
        ("tiny", 0, 1),
        ("tiny", 1, 1),
        ("tiny", 2, 1),
    ]


def test_draining_waits_for_the_last_answer(harness: ExecutorHarness) -> None:
    assert harness.executor.drain(0)
    with harness.held(0) as held:
        jobs = [harness.submit(UNSURE) for _ in range(3)]
        held.wait_until_running()
        assert not harness.executor.drain(0)
    assert harness.executor.drain(PATIENCE)
    assert [job.future.result(PATIENCE).reason for job in jobs] == ["final"] * 3


def test_closing_refuses_what_waits_and_answers_what_runs(harness: ExecutorHarness) -> None:
    with harness.held(0) as held:
        running = harness.submit(UNSURE)
        held.wait_until_running()
        waiting = [harness.submit(UNSURE) for _ in range(3)]
        closing = threading.Thread(target=harness.executor.close)
        closing.start()
        for job in waiting:
            with pytest.raises(Draining):
                job.future.result(PATIENCE)
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert (running.future.result(PATIENCE).reason, running.exit) == ("cancelled", 0)
    with pytest.raises(Draining):
        harness.submit(UNSURE)
    harness.executor.close()


def test_closing_ends_every_job_although_one_does_not_end_cleanly(
    harness: ExecutorHarness, monkeypatch: pytest.MonkeyPatch, failed: Callable[[str], int]
) -> None:
    with harness.held(0) as held:
        harness.submit(UNSURE)
        held.wait_until_running()
        waiting = [harness.submit(UNSURE) for _ in range(3)]
        waiting[1].exit = 0  # without its numbers, so that no answer can be written
        monkeypatch.setattr(UnlimitedEnergy, "refused", raises)
        closing = threading.Thread(target=harness.executor.close)
        closing.start()
        for job in waiting:
            with pytest.raises(Draining):
                job.future.result(PATIENCE)
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert harness.executor.drain(0)
    assert failed("request_end") == 4


def test_failures_of_one_kind_are_logged_once_and_counted(
    harness: ExecutorHarness, caplog: pytest.LogCaptureFixture, failed: Callable[[str], int]
) -> None:
    harness.network.before = fail_at(0)
    with caplog.at_level(logging.ERROR, "delen.engine"):
        for _ in range(3):
            with pytest.raises(BackendError):
                harness.infer(SURE)
    assert failed("segment") == 3
    assert len(caplog.records) == 1


def test_every_answer_is_told_of_once(harness: ExecutorHarness) -> None:
    for confidences in (SURE, UNSURE, SURE):
        harness.infer(confidences)
    harness.network.before = fail_at(0)
    failed = harness.submit(SURE)
    with pytest.raises(BackendError):
        failed.future.result(PATIENCE)
    harness.executor.close()
    assert [result.request_id for result in harness.observer.results] == ["r1", "r2", "r3"]


def test_an_answer_is_told_of_before_it_leaves(harness: ExecutorHarness) -> None:
    told: list[bool] = []
    with harness.held(0) as held:
        job = harness.submit(SURE)
        held.wait_until_running()
        job.future.add_done_callback(
            lambda left: told.append(left.result() in harness.observer.results)
        )
    harness.executor.close()
    assert told == [True]


def test_numbers_that_are_not_finite_are_no_answer(harness: ExecutorHarness) -> None:
    with pytest.raises(BackendError, match=r"exit 0 of .* no finite numbers"):
        harness.infer((nan, nan, nan))
    later = harness.infer((0.3, nan, nan))
    assert (later.exit, later.reason) == (0, "failed")
    assert harness.observer.segment_failures == [("tiny", 0), ("tiny", 1)]
    assert harness.infer(SURE).reason == "confident"


def test_others_of_the_batch_keep_their_answers(harness: ExecutorHarness) -> None:
    with harness.held(0) as held:
        harness.submit(SURE)
        held.wait_until_running()
        jobs = [harness.submit(confidences) for confidences in (SURE, (nan, nan, nan), SURE)]
        held.release()
    assert jobs[0].future.result(PATIENCE).reason == "confident"
    with pytest.raises(BackendError):
        jobs[1].future.result(PATIENCE)
    assert jobs[2].future.result(PATIENCE).reason == "confident"
    assert (0, 3) in harness.network.batches


def test_the_engine_outlives_what_goes_wrong_beside_an_answer(
    harness: ExecutorHarness,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failed: Callable[[str], int],
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("delen.engine.jobs.write_result", raises)
        for _ in range(2):
            with pytest.raises(BackendError, match="ZeroDivisionError"):
                harness.infer(SURE)
    assert harness.infer(SURE).reason == "confident"
    assert harness.executor.drain(PATIENCE)
    assert [record.message[:13] for record in caplog.records] == ["a request did", "lane 0 failed"]
    assert failed("lane") == 2


def raises(*_: Any) -> None:
    raise ZeroDivisionError


def test_a_segment_that_keeps_failing_is_named_until_it_works(harness: ExecutorHarness) -> None:
    harness.network.before = fail_at(1)
    for times in (1, 2, 3):
        assert harness.infer(UNSURE).reason == "failed"
        assert len(harness.executor.health.failing(0.0)) == (times == 3)
    assert harness.infer(SURE).reason == "confident", "segment 0 works"
    assert "segment 1 of tiny" in harness.executor.health.failing(0.0)[0]
    harness.network.before = lambda segment: None
    assert harness.infer(UNSURE).reason == "final"
    assert harness.executor.health.failing(0.0) == []


def test_a_batch_that_cannot_be_accounted_for_frees_its_lane_and_its_jobs(
    harness: ExecutorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in ("ran", "go_on", "end"):
        with monkeypatch.context() as patched:
            patched.setattr(harness.scheduler, call, raises)
            job = harness.submit(UNSURE if call == "go_on" else SURE)
            error = job.future.exception(PATIENCE)
            if error is not None:
                assert isinstance(error, BackendError)
            else:
                assert job.future.result().reason == "failed"
        assert harness.executor.drain(PATIENCE)
        assert harness.infer(UNSURE).reason == "final", f"after {call} failed"
        assert harness.executor.lanes() == (1, 0)


def test_jobs_of_a_lane_that_died_end_and_none_is_accepted(harness: ExecutorHarness) -> None:
    def die(segment: int) -> None:
        raise SystemExit

    with harness.held(1) as held:
        reached = harness.submit(UNSURE)
        held.wait_until_running()
        waiting = harness.submit(UNSURE)
        held.release()
        harness.network.before = die
        error = waiting.future.exception(PATIENCE)
    assert isinstance(error, BackendError)
    assert "SystemExit" in str(error)
    assert reached.future.result(PATIENCE).reason in ("failed", "final")
    with pytest.raises(BackendError, match="lane 0"):
        harness.submit(SURE)
    harness.executor.close()


def test_what_hangs_is_named_without_the_lock(harness: ExecutorHarness) -> None:
    health = harness.executor.health
    with harness.held(0) as held, harness.executor.lock:
        job = harness.job(SURE)
        began = harness.clock.now
        harness.executor.submit(job, harness.clock.now)
        assert health.hangs(began + 1000) == []
        harness.executor.lock.release()
        held.wait_until_running()
        harness.executor.lock.acquire()
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.extend(health.hangs(began + 1000)))
        thread.start()
        thread.join(PATIENCE)
        assert len(found) == 1
        assert "segment 0 of tiny" in found[0]
        assert health.hangs(began + 1) == []
    assert job.future.result(PATIENCE).exit == 0
    assert health.hangs(began + 1000) == []


def test_a_batch_that_hangs_is_left_behind_and_its_model_refused_until_it_returns(
    harness: ExecutorHarness,
) -> None:
    executor, health = harness.executor, harness.executor.health
    with harness.held(1) as held:
        reached = harness.submit(UNSURE)
        held.wait_until_running()
        waiting = harness.submit(UNSURE)
        later = harness.clock.now + 1000
        assert not executor.leave_hanging(harness.clock.now)
        assert executor.leave_hanging(later)
        assert reached.future.result(PATIENCE).reason == "failed"
        assert reached.future.result(PATIENCE).exit == 0
        with pytest.raises(ModelLoading, match="tiny"):
            waiting.future.result(PATIENCE)
        with pytest.raises(ModelLoading, match="tiny"):
            harness.submit(SURE)
        assert executor.remove_model("tiny") == 1, "its segment runs still"
        assert "segment 1 of tiny" in health.hangs(later)[0], "no other model is served"
        harness.serve("other")
        assert health.hangs(later) == []
        assert "segment 1 of tiny" in health.failing(later)[0]
        assert harness.infer(SURE).exit == 0, "the lane goes on with another model"
    harness.serve("tiny")
    wait_until(lambda: health.failing(later) == [], "it came back")
    assert harness.infer(SURE).exit == 0
    assert not executor.leave_hanging(later)


def test_an_end_of_a_thread_that_was_left_behind_ends_nothing_else(
    harness: ExecutorHarness,
) -> None:
    def die(segment: int) -> None:
        held._wait(segment)
        raise SystemExit

    with harness.held(0) as held:
        harness.network.before = die
        job = harness.submit(SURE)
        held.wait_until_running()
        assert harness.executor.leave_hanging(harness.clock.now + 1000)
        with pytest.raises(ModelLoading):
            job.future.result(PATIENCE)
    harness.serve("other")
    assert harness.infer(SURE).exit == 0
