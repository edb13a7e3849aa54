"""A batch is admitted or refused as a whole, and queued as room frees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds, Options
from delen.core.plan import Plan
from delen.core.result import Result
from delen.engine.backends.base import SegmentRun
from delen.engine.energy_admission import Admitted, UnlimitedEnergy
from delen.engine.job import Job
from delen.errors import (
    BackendError,
    BatchTooLarge,
    BudgetExhausted,
    Draining,
    InfeasibleBound,
    InvalidInput,
    Overloaded,
)
from delen.profile.cost_model import CostModel
from delen.residency.lease import Lease, ModelResidency
from tests.builders.engine import PATIENCE, build_model, build_runtime
from tests.unit.delen.engine.harness import Clock, Held

SECONDS = 0.01
LARGEST_BATCH = 8
WINDOW = 2 * LARGEST_BATCH
"""So many samples of a batch are in the queue of one lane at most."""


class Unsure:
    """Runs every sample to the end of its plan; a segment takes 10 ms on ``clock``, for each
    further sample of a batch ``growth`` times as long."""

    def __init__(self, clock: Clock, growth: float) -> None:
        self.clock, self.growth = clock, growth
        self.before: Callable[[int], None] = lambda segment: None
        self.runs: list[tuple[int, int]] = []
        self.most_waiting = 0
        self.count_waiting: Callable[[], int] = int

    def run(self, segment: int, samples: Sequence[Any], lane: int = 0) -> SegmentRun:
        self.before(segment)
        self.runs.append((segment, len(samples)))
        self.most_waiting = max(self.most_waiting, self.count_waiting())
        self.clock.now += SECONDS * (1 + self.growth * (len(samples) - 1))
        logits = np.zeros((len(samples), 4), np.float32)
        return SegmentRun(samples, logits, np.full(len(samples), 0.1, np.float32))


class Purse(UnlimitedEnergy):
    """Has ``left`` joules, and counts what is told of refusals."""

    def __init__(self) -> None:
        self.left = 1e9
        self.refusals: list[str] = []

    def admit(
        self, tenant: str, plan: Plan, replan: Callable[[float], Plan], samples: int = 1
    ) -> Admitted:
        if samples > self.left:
            raise BudgetExhausted("nothing is left", retry_after=1.0)
        self.left -= samples
        return Admitted(plan, 1.0)

    def ended(self, share: Any, reserved: float, used: float | None, result: Result | None) -> None:
        self.left += reserved

    def refused(self, tenant: str, code: str) -> None:
        self.refusals.append(code)


class Leased(ModelResidency):
    """Of a model whose segments are in memory; ``held`` are the leases on each."""

    def __init__(self) -> None:
        self.held = [0, 0, 0]

    def lease(self, exit: int, seconds: float) -> Lease:
        for segment in range(exit + 1):
            self.held[segment] += 1
        return Lease(self._release, range(exit + 1))

    def _release(self, segment: int) -> None:
        self.held[segment] -= 1


class Served:
    """A runtime with one lane, which is busy while ``running`` is entered."""

    def __init__(
        self,
        bundle: Path,
        calibration: Calibration,
        costs: CostModel,
        clock: Clock,
        max_backlog: float,
        growth: float,
    ) -> None:
        self.clock, self.network, self.energy = clock, Unsure(clock, growth), Purse()
        self.running = Held(self.network, 0)
        self.residency = Leased()
        model = build_model(
            bundle,
            costs,
            network=self.network,
            calibration=calibration,
            residency=self.residency,
        )
        self.runtime = build_runtime(
            [bundle], lambda _: model, energy=self.energy, max_backlog=max_backlog
        )
        self.network.count_waiting = lambda: len(self.runtime._admission._scheduler)

    def submit(self, samples: int, bounds: Bounds | None = None, **options: Any) -> list[Job]:
        sample = np.zeros((4, 4, 1), np.uint8)
        return self.runtime.submit_batch(
            "tiny", [sample] * samples, bounds or Bounds(max_energy=1.0), Options(**options)
        )

    def fill_the_lane(self, samples: int = 1, **options: Any) -> list[Job]:
        jobs = self.submit(samples, **options)
        self.running.wait_until_running()
        return jobs

    @property
    def sizes(self) -> list[int]:
        """Samples of each batch of segment 0 that ran."""
        return [size for segment, size in self.network.runs if segment == 0]

    def check_nothing_is_left(self) -> None:
        assert self.runtime.drain(PATIENCE)
        assert self.energy.left == 1e9
        assert self.residency.held == [0, 0, 0]
        assert self.runtime.backlog_seconds() == 0


def results(jobs: list[Job]) -> list[Result]:
    return [job.future.result(PATIENCE) for job in jobs]


def errors(jobs: list[Job]) -> set[type[BaseException] | None]:
    wait([job.future for job in jobs], PATIENCE)
    found = [job.future.exception(0) for job in jobs]
    return {None if error is None else type(error) for error in found}


@pytest.fixture
def make_served(
    tiny_bundle: Path,
    make_calibration: Callable[..., Calibration],
    make_costs: Callable[..., CostModel],
    clock: Clock,
) -> Iterator[Callable[..., Served]]:
    """Makes runtimes where a sample takes 10 ms a segment, by default in a batch as well."""
    made: list[Served] = []

    def make(max_backlog: float = 2.0, growth: float = 1.0) -> Served:
        costs = make_costs(SECONDS, SECONDS, SECONDS, watts=4.0, growth=growth)
        calibration = make_calibration(0.6, 0.8, 0.9)
        made.append(Served(tiny_bundle, calibration, costs, clock, max_backlog, growth))
        return made[-1]

    yield make
    for served in made:
        served.runtime.close()


@pytest.fixture
def served(make_served: Callable[..., Served]) -> Served:
    return make_served()


def test_a_batch_beyond_the_backlog_is_answered_and_never_fills_the_queue(
    make_served: Callable[..., Served],
) -> None:
    served = make_served(growth=0.1)
    answered = results(served.submit(1000))
    assert {result.exit for result in answered} == {2}
    assert len({result.request_id for result in answered}) == 1000
    assert sum(served.sizes) == 1000
    assert served.network.most_waiting <= WINDOW
    assert len(served.sizes) < 1.1 * 1000 / LARGEST_BATCH, "the lane ran full batches"
    assert served.energy.refusals == []
    served.check_nothing_is_left()


def test_a_batch_leaves_half_of_a_small_backlog_to_others(
    make_served: Callable[..., Served],
) -> None:
    served = make_served(max_backlog=0.12)  # of four samples
    with served.running:
        batch = served.fill_the_lane(100)
        others = served.submit(1) + served.submit(1)
    results(others)
    results(batch)
    assert served.network.most_waiting <= 5
    served.check_nothing_is_left()


def test_what_comes_later_does_not_wait_for_a_whole_batch(served: Served) -> None:
    with served.running:
        batch = served.fill_the_lane(100)
        (later,) = served.submit(1)
    result = later.future.result(PATIENCE)
    results(batch)
    assert result.receipt.latency.value < 2 * WINDOW * 3 * SECONDS
    assert served.clock.now - later.arrived > 200 * SECONDS


def test_what_is_to_come_of_a_batch_counts_for_those_that_it_goes_before(served: Served) -> None:
    with served.running:
        batch = served.fill_the_lane(100, priority=1)
        assert served.runtime.backlog_seconds() > 90 * 3 * SECONDS
        with pytest.raises(Overloaded) as refused:
            served.submit(1, Bounds(max_latency=0.5))
        assert refused.value.retry_after > 0.8
        served.submit(1, Bounds(max_latency=0.5), priority=1)
    results(batch)
    served.check_nothing_is_left()


def test_two_tenants_with_batches_share_the_device_and_waste_nothing(
    make_served: Callable[..., Served],
) -> None:
    served = make_served(growth=0.1)
    began = served.clock.now
    for _ in range(4):
        results(served.submit(200, tenant="a"))
    alone = served.clock.now - began
    with served.running:
        first = served.fill_the_lane(200, tenant="a")
        second = served.submit(200, tenant="b")
    began = first[0].arrived
    results(first)
    first += served.submit(200, tenant="a")
    results(second)
    second += served.submit(200, tenant="b")
    values = [result.receipt.latency.value for result in results(first[200:] + second[200:])]
    together = served.clock.now - began
    assert together < alone / 0.9, "the lane ran full batches"
    assert max(values) < 0.75 * together, "neither waits for all of the other"
    assert served.energy.refusals == []
    served.check_nothing_is_left()


@pytest.mark.parametrize("samples", [1, 3, 50])
def test_energy_is_reserved_for_all_samples_or_none(served: Served, samples: int) -> None:
    served.energy.left = samples - 1
    with pytest.raises(BudgetExhausted):
        served.submit(samples)
    assert (served.energy.left, served.energy.refusals) == (samples - 1, ["budget_exhausted"])
    assert served.residency.held == [0, 0, 0]
    assert served.runtime.jobs("tiny") == 0
    served.energy.left = samples
    with served.running:
        batch = served.fill_the_lane(samples)
        assert served.energy.left == 0
    results(batch)
    assert served.runtime.drain(PATIENCE)
    assert served.energy.left == samples


def test_a_batch_is_checked_whole_before_anything_is_queued(served: Served) -> None:
    good, bad = np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 1), np.float32)
    with pytest.raises(InvalidInput):
        served.runtime.submit_batch("tiny", [good] * 20 + [bad], Bounds(), Options())
    assert served.network.runs == []
    served.check_nothing_is_left()


def test_a_batch_that_an_idle_device_cannot_answer_in_time_names_the_size_that_it_can(
    served: Served,
) -> None:
    bounds = Bounds(max_latency=1.0)  # of 100 samples at their first exits
    with pytest.raises(BatchTooLarge) as refused:
        served.submit(1000, bounds)
    assert 75 <= refused.value.largest <= 100
    assert served.energy.refusals == ["batch_too_large"]
    assert served.network.runs == []
    answered = results(served.submit(refused.value.largest, bounds))
    assert len(answered) == refused.value.largest
    assert all(result.receipt.latency.met for result in answered)
    served.check_nothing_is_left()


def test_bounds_that_no_single_sample_can_keep_are_infeasible(served: Served) -> None:
    with pytest.raises(InfeasibleBound):
        served.submit(1000, Bounds(max_latency=0.001))


def test_the_best_effort_answers_a_batch_of_any_size(served: Served) -> None:
    answered = results(served.submit(300, Bounds(max_latency=1.0), on_infeasible="best_effort"))
    assert {result.exit for result in answered} == {0}
    assert not answered[-1].receipt.latency.met


def test_a_batch_that_only_cannot_be_answered_now_is_told_when_it_can(served: Served) -> None:
    bounds = Bounds(max_latency=1.0)
    with served.running:
        before = served.fill_the_lane() + served.submit(40, Bounds(max_latency=0.9))
        with pytest.raises(Overloaded) as refused:
            served.submit(70, bounds)
        came = served.clock.now
    results(before)
    served.clock.now = max(served.clock.now, came + refused.value.retry_after)
    assert all(result.receipt.latency.met for result in results(served.submit(70, bounds)))


@pytest.mark.parametrize("cap", [0.6, 1.1, 3.0])
def test_all_answers_of_a_batch_are_in_time_and_none_takes_the_time_of_others(
    served: Served, cap: float
) -> None:
    answered = results(served.submit(50, Bounds(max_latency=cap)))
    assert all(result.receipt.latency.met for result in answered)
    exits = [result.exit for result in answered]
    assert max(exits) - min(exits) <= 1
    assert exits[0] == {0.6: 0, 1.1: 1, 3.0: 2}[cap]


def test_one_that_fails_ends_the_others_and_what_is_held_never_runs(served: Served) -> None:
    def fail(segment: int) -> None:
        raise RuntimeError("broken")

    served.network.before = fail
    batch = served.submit(500)
    assert errors(batch) == {BackendError}
    assert served.network.runs == []
    served.check_nothing_is_left()


def test_a_segment_that_cannot_be_loaded_ends_all_that_wait_for_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = served.runtime._executor
    executor.keep_resident("tiny", 0)
    batch = served.submit(50)
    broken = BackendError("broken")
    monkeypatch.setattr(ModelResidency, "failure", lambda residency, segment: broken)
    executor.end_unavailable("tiny")
    assert errors(batch) == {BackendError}
    served.check_nothing_is_left()


def test_a_client_that_leaves_cancels_all(served: Served) -> None:
    with served.running:
        batch = served.fill_the_lane(500)
        served.runtime.cancel(batch)
    assert errors(batch) == {Draining, None}
    assert len(served.sizes) == 1, "only what ran already"
    served.check_nothing_is_left()


def test_a_batch_that_is_admitted_is_answered_before_the_drain_ends(served: Served) -> None:
    with served.running:
        batch = served.fill_the_lane(200)
        served.runtime.start_draining()
        with pytest.raises(Draining):
            served.submit(1)
    assert served.runtime.drain(PATIENCE)
    assert errors(batch) == {None}


def test_closing_refuses_what_is_held(served: Served) -> None:
    with served.running:
        batch = served.fill_the_lane(200)
        assert served.runtime.jobs("tiny") == 200
        served.running.release()
        served.runtime.close()
    assert errors(batch) <= {Draining, None}
    assert served.runtime.jobs("tiny") == 0
    assert served.energy.left == 1e9
    assert served.residency.held == [0, 0, 0]


def test_a_long_queue_of_a_batch_ends_at_one_failure(
    make_served: Callable[..., Served],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("delen.engine.batch_feed._FULL_BATCHES", 100)
    served = make_served(max_backlog=1e6)
    with served.running:
        batch = served.fill_the_lane(1000)
        served.runtime.cancel(batch)
    assert errors(batch) == {Draining, None}
    assert caplog.records == []
    served.check_nothing_is_left()


def test_a_sample_that_cannot_be_queued_ends_its_batch(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = served.runtime._admission._scheduler
    add, added = scheduler.add, []

    def add_some(now: float, task: Any) -> None:
        added.append(task)
        if len(added) > WINDOW + 3:
            raise RuntimeError("broken")
        add(now, task)

    monkeypatch.setattr(scheduler, "add", add_some)
    batch = served.submit(100)
    assert BackendError in errors(batch)
    served.check_nothing_is_left()
