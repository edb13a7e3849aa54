"""The executor with two lanes, whose networks a test holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait

import pytest

from delen.core.bounds import Bounds
from delen.errors import BackendError, Draining
from tests.unit.delen.engine.harness import PATIENCE, SURE, UNSURE, ExecutorHarness

MakeHarness = Callable[..., ExecutorHarness]


class Gate:
    """Lets a network into its runs only while it is open, and counts those that wait inside."""

    def __init__(self, harness: ExecutorHarness) -> None:
        self._changed = threading.Condition()
        self._passes = 0
        self.inside = 0
        harness.network.before = self._enter

    def _enter(self, segment: int) -> None:
        with self._changed:
            self.inside += 1
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._passes > 0, PATIENCE)
            self._passes -= 1
            self.inside -= 1

    def wait(self, inside: int) -> None:
        """Until so many runs are inside at once."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.inside == inside, PATIENCE)

    def let_pass(self, runs: int) -> None:
        with self._changed:
            self._passes += runs
            self._changed.notify_all()


@pytest.fixture
def two(make_harness: MakeHarness) -> ExecutorHarness:
    """Two lanes that do not slow each other; each batch is of one job."""
    return make_harness(lanes=2, corun=(1.0, 1.0), batches=(1,))


@pytest.fixture
def gate(two: ExecutorHarness) -> Iterator[Gate]:
    gate = Gate(two)
    yield gate
    gate.let_pass(1000)


def test_two_run_at_once_and_a_third_waits(two: ExecutorHarness, gate: Gate) -> None:
    jobs = [two.submit(SURE) for _ in range(3)]
    gate.wait(2)
    assert two.executor.lanes() == (2, 2)
    assert two.executor.jobs_of("tiny") == 3
    gate.let_pass(1)
    done, _ = wait([job.future for job in jobs], PATIENCE, FIRST_COMPLETED)
    gate.wait(2)
    assert len(done) == 1
    gate.let_pass(2)
    assert {job.future.result(PATIENCE).reason for job in jobs} == {"confident"}
    assert two.executor.drain(PATIENCE)
    assert two.executor.lanes() == (2, 0)


def test_what_one_lane_begins_another_may_end(two: ExecutorHarness, gate: Gate) -> None:
    """The network asserts that each sample comes to each segment after those before it."""
    jobs = [two.submit(UNSURE) for _ in range(20)]
    gate.let_pass(1000)
    assert [job.future.result(PATIENCE).reason for job in jobs] == ["final"] * 20
    assert len(two.network.batches) == 60


def test_lanes_that_would_not_do_more_stay_idle(make_harness: MakeHarness) -> None:
    harness = make_harness(lanes=2, corun=(1.0, 2.2), batches=(1,))
    gate = Gate(harness)
    jobs = [harness.submit(SURE) for _ in range(3)]
    gate.wait(1)
    assert harness.executor.lanes() == (2, 1)
    gate.let_pass(1000)
    assert {job.future.result(PATIENCE).reason for job in jobs} == {"confident"}


def test_both_can_be_cancelled_while_they_run(two: ExecutorHarness, gate: Gate) -> None:
    jobs = [two.submit(UNSURE, Bounds(min_accuracy=0.7)) for _ in range(3)]
    gate.wait(2)
    for job in jobs:
        two.executor.cancel(job)
    with pytest.raises(Draining):
        jobs[2].future.result(PATIENCE)
    gate.let_pass(1000)
    for job in jobs[:2]:
        result = job.future.result(PATIENCE)
        assert (result.exit, result.reason) == (0, "cancelled")


def test_draining_waits_for_both(two: ExecutorHarness, gate: Gate) -> None:
    jobs = [two.submit(SURE) for _ in range(2)]
    gate.wait(2)
    gate.let_pass(1)
    assert not two.executor.drain(0)
    gate.let_pass(1)
    assert two.executor.drain(PATIENCE)
    assert all(job.future.done() for job in jobs)


def test_closing_answers_what_both_run(two: ExecutorHarness, gate: Gate) -> None:
    running = [two.submit(UNSURE) for _ in range(2)]
    gate.wait(2)
    waiting = [two.submit(UNSURE) for _ in range(3)]
    closing = threading.Thread(target=two.executor.close)
    closing.start()
    for job in waiting:
        with pytest.raises(Draining):
            job.future.result(PATIENCE)
    gate.let_pass(2)
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert {job.future.result(PATIENCE).reason for job in running} == {"cancelled"}


def test_a_failure_on_one_lane_leaves_the_other_alone(two: ExecutorHarness) -> None:
    entered, go = threading.Event(), threading.Event()
    first = threading.Lock()

    def before(segment: int) -> None:
        if first.acquire(blocking=False):
            entered.set()
            assert go.wait(PATIENCE)
        elif not go.is_set():
            raise RuntimeError("out of memory")

    two.network.before = before
    good = two.submit(UNSURE)
    assert entered.wait(PATIENCE)
    bad = two.submit(UNSURE)
    with pytest.raises(BackendError, match="out of memory"):
        bad.future.result(PATIENCE)
    go.set()
    assert good.future.result(PATIENCE).reason == "final"
    assert two.infer(UNSURE).reason == "final"


def test_a_model_is_in_use_while_any_lane_runs_it(two: ExecutorHarness, gate: Gate) -> None:
    job = two.submit(SURE)
    gate.wait(1)
    assert two.executor.remove_model("tiny") == 1
    gate.let_pass(1)
    assert job.future.result(PATIENCE).reason == "confident"
    assert two.executor.drain(PATIENCE)
    assert two.executor.remove_model("tiny") == 0
