"""A request that is alone goes from segment to segment without a choice between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from delen.core.bounds import Bounds
from delen.core.dispatch import Turn
from delen.core.result import Result
from policies.dispatch.value import Value
from tests.unit.delen.engine.harness import PATIENCE, SURE, UNSURE, Clock, ExecutorHarness


class Counting(Value):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def choose(self, now: float, waiting: Any, models: Any) -> Turn:
        self.asked += 1
        return super().choose(now, waiting, models)


class Asked(Counting):
    """Has to be asked each time."""

    runs_alone = None  # type: ignore[assignment]


BOUNDS = [
    Bounds(),
    Bounds(max_latency=0.5),
    Bounds(max_latency=0.031),
    Bounds(max_latency=0.012),
    Bounds(max_energy=0.09),
    Bounds(min_accuracy=0.7),
    Bounds(max_latency=0.031, min_accuracy=0.8),
    Bounds(max_latency=0.5, max_energy=0.09, min_accuracy=0.6),
]


def answer_all(harness: ExecutorHarness, clock: Clock) -> list[Result]:
    """One after the other, on a device that is as fast as expected, slower, and faster."""
    clock.now = 1000.0
    results = []
    for seconds in (0.01, 0.013, 0.006):
        harness.network.seconds = [seconds, seconds, seconds]
        for bounds in BOUNDS:
            for confidences in (SURE, UNSURE, (0.3, 0.99, 0.3)):
                results.append(harness.infer(confidences, bounds, on_infeasible="best_effort"))
                clock.now += 0.001
    return results


def test_answers_and_receipts_are_those_of_the_long_way(
    make_harness: Callable[..., ExecutorHarness], clock: Clock
) -> None:
    short, asked = Counting(), Asked()
    results = answer_all(make_harness(short), clock)
    assert results == answer_all(make_harness(asked), clock)
    assert {result.reason for result in results} >= {"confident", "planned_exit", "final"}
    assert short.asked < asked.asked


def test_a_request_that_is_alone_is_never_chosen(
    make_harness: Callable[..., ExecutorHarness],
) -> None:
    policy = Counting()
    harness = make_harness(policy)
    assert harness.infer(UNSURE).reason == "final"
    assert harness.network.batches == [(0, 1), (1, 1), (2, 1)]
    assert policy.asked == 0


def test_one_that_comes_meanwhile_is_considered_at_the_next_exit(
    make_harness: Callable[..., ExecutorHarness],
) -> None:
    harness = make_harness(Counting())
    with harness.held(1) as held:
        first = harness.submit(UNSURE)
        held.wait_until_running()
        urgent = harness.submit(SURE, Bounds(max_latency=0.1, min_accuracy=0.7))
    assert urgent.future.result(PATIENCE).reason == "confident"
    assert first.future.result(PATIENCE).reason == "final"
    assert [segment for segment, _ in harness.network.batches] == [0, 1, 0, 2]


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_cancelled_one_goes_no_further(
    make_harness: Callable[..., ExecutorHarness], lanes: int
) -> None:
    harness = make_harness(Counting(), lanes)
    with harness.held(1) as held:
        job = harness.submit(UNSURE)
        held.wait_until_running()
        harness.executor.cancel(job)
    result = job.future.result(PATIENCE)
    assert (result.exit, result.reason) == (1, "cancelled")
    assert harness.executor.drain(PATIENCE)
    assert harness.executor.lanes() == (lanes, 0)
