"""The worker with a network whose answers, and whose time, a test chooses."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.bounds import Bounds, Options
from delen.bundle import Bundle, load_bundle
from delen.calibration import Calibration
from delen.costs import Costs
from delen.energy import Work
from delen.engine.backends.base import SegmentRun
from delen.engine.job import Job
from delen.engine.model import Model
from delen.engine.worker import Worker
from delen.errors import BackendError, Draining
from delen.plan import GO_ON, Decision, ExitView
from delen.result import Result
from policies.exits import BoundsPolicy
from policies.planner import Planner, PlannerSettings

MakeCosts = Callable[..., Costs]
PATIENCE = 30.0
"""How long a test waits for what has to happen before it fails; nothing is timed by it."""


class Clock:
    """Stands in for the worker's module ``time``; networks move it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.processor = 0.0

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.processor


class FakeNetwork:
    """Three exits over samples that are lists of their three confidences.

    The features after a segment are the sample and the segments that it went through, so that a
    mix-up of samples or segments is seen. ``seconds`` is what each segment takes on ``clock``.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds = [0.01, 0.01, 0.01]
        self.batches: list[tuple[int, int]] = []
        self.before: Callable[[int], None] = lambda segment: None

    def run(self, segment: int, samples: Sequence[Any]) -> SegmentRun:
        self.batches.append((segment, len(samples)))
        self.before(segment)
        self.clock.now += self.seconds[segment]
        self.clock.processor += self.seconds[segment] / 2
        reached = [(s, ()) for s in samples] if segment == 0 else list(samples)
        assert all(path == tuple(range(segment)) for _, path in reached)
        confidence = np.array([confidences[segment] for confidences, _ in reached], np.float32)
        logits = np.zeros((len(samples), 4), np.float32)
        logits[:, segment] = 5.0
        features = [(s, (*path, segment)) for s, path in reached] if segment < 2 else []
        return SegmentRun(features, logits, confidence)


class Counts:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.runs: list[tuple[str, int, int]] = []
        self.policy_failures = 0
        self.audits: list[bool] = []

    def answered(self, result: Result) -> None:
        self.results.append(result)

    def ran(self, work: Work) -> None:
        self.runs.append((work.model, work.segment, work.batch))

    def policy_failed(self, model: str) -> None:
        self.policy_failures += 1

    def audited(self, model: str, agreed: bool) -> None:
        self.audits.append(agreed)


class House:
    """A worker with one model, and what is needed to give it jobs."""

    def __init__(
        self, bundle: Bundle, calibration: Calibration, costs: Costs, clock: Clock
    ) -> None:
        self.clock = clock
        self.network = FakeNetwork(clock)
        self.counts = Counts()
        self.worker = Worker(self.counts, threads=2)
        self.planner = Planner(calibration, PlannerSettings())
        self._bundle, self._costs = bundle, costs
        self._ids = count(1)
        self.use(BoundsPolicy())

    def use(self, policy: Any) -> None:
        self.model = Model(self._bundle, self.network, self.planner, policy, self._costs)
        self.worker.add_model(self.model)

    def job(
        self,
        confidences: tuple[float, float, float] = (0.3, 0.3, 0.3),
        bounds: Bounds | None = None,
        **options: Any,
    ) -> Job:
        bounds = bounds or Bounds()
        number = next(self._ids)
        return Job(
            id=number,
            request_id=f"r{number}",
            model=self.model,
            bounds=bounds,
            options=Options(**options),
            plan=self.planner.plan(bounds, self._costs),
            arrived=self.clock.now,
            features=list(confidences),
        )

    def submit(self, *args: Any, **options: Any) -> Job:
        job = self.job(*args, **options)
        self.worker.submit(job)
        return job

    def infer(self, *args: Any, **options: Any) -> Result:
        return self.submit(*args, **options).future.result(PATIENCE)

    def held(self, segment: int) -> Held:
        return Held(self.network, segment)


class Held:
    """While it is entered, the next run of ``segment`` waits inside the network."""

    def __init__(self, network: FakeNetwork, segment: int) -> None:
        self._network, self._segment = network, segment
        self._inside, self._go = threading.Event(), threading.Event()

    def __enter__(self) -> Held:
        self._network.before = self._wait
        return self

    def __exit__(self, *error: object) -> None:
        self._network.before = lambda segment: None
        self.release()

    def release(self) -> None:
        self._go.set()

    def _wait(self, segment: int) -> None:
        if segment == self._segment:
            self._inside.set()
            assert self._go.wait(PATIENCE)

    def wait_until_running(self) -> None:
        assert self._inside.wait(PATIENCE)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("delen.engine.worker.time", clock)
    return clock


@pytest.fixture
def house(
    tiny_bundle: Path,
    make_calibration: Callable[..., Calibration],
    make_costs: MakeCosts,
    clock: Clock,
) -> Iterator[House]:
    """Exits of 10 ms and 40 mJ each, right in 60, 80 and 90 of 100 cases."""
    costs = make_costs(0.01, 0.01, 0.01, watts=4.0, growth=0.0)
    house = House(load_bundle(tiny_bundle), make_calibration(0.6, 0.8, 0.9), costs, clock)
    yield house
    house.worker.close()


SURE = (0.999, 0.999, 0.999)
UNSURE = (0.1, 0.1, 0.1)


def test_a_confident_answer_leaves_at_once(house: House) -> None:
    result = house.infer(SURE)
    assert (result.exit, result.exits, result.reason) == (0, 3, "confident")
    assert house.network.batches == [(0, 1)]
    assert result.index == 0
    assert result.label == "class 0"


def test_an_unsure_answer_goes_to_the_end(house: House) -> None:
    result = house.infer(UNSURE)
    assert (result.exit, result.reason) == (2, "final")
    assert [segment for segment, _ in house.network.batches] == [0, 1, 2]
    assert result.index == 2


def test_a_cap_ends_where_it_was_planned_to(house: House) -> None:
    result = house.infer(SURE, Bounds(max_energy=0.09))
    assert (result.exit, result.reason) == (1, "planned_exit")
    energy = result.receipt.energy
    assert (energy.value, energy.predicted) == pytest.approx((0.08, 0.08))
    assert (energy.kind, energy.source, energy.met) == ("estimated", "test", True)


def test_a_receipt_tells_waiting_from_running(house: House) -> None:
    job = house.job(UNSURE, Bounds(max_latency=0.5))
    house.clock.now += 0.2
    house.worker.submit(job)
    latency = job.future.result(PATIENCE).receipt.latency
    assert latency.queue == pytest.approx(0.2)
    assert latency.value == pytest.approx(0.23)
    assert latency.predicted == pytest.approx(0.03)
    assert (latency.bound, latency.met) == (0.5, True)


def test_going_on_is_not_tried_where_it_would_be_late(house: House) -> None:
    house.network.seconds[0] = 0.012
    result = house.infer(UNSURE, Bounds(max_latency=0.031))
    assert (result.exit, result.reason) == (1, "latency")
    assert result.receipt.latency.met is True
    assert result.receipt.accuracy.met is None
    assert result.receipt.met


def test_a_miss_is_told_and_answered_with_the_best_so_far(house: House) -> None:
    house.network.seconds[0] = 0.050
    result = house.infer(UNSURE, Bounds(max_latency=0.031, min_accuracy=0.7))
    assert (result.exit, result.reason) == (0, "latency")
    receipt = result.receipt
    assert (receipt.latency.met, receipt.accuracy.met, receipt.met) == (False, False, False)
    assert receipt.latency.value == pytest.approx(0.050)
    assert receipt.accuracy.guarantee is None


def test_expected_accuracy_is_that_of_the_answers_own_case(house: House) -> None:
    bounds = Bounds(max_latency=0.031, min_accuracy=0.8)
    plan = house.job(bounds=bounds).plan
    assert plan.threshold is not None
    confident, planned = house.infer(SURE, bounds), house.infer(UNSURE, bounds)
    house.network.seconds[0] = 0.050
    forced = house.infer(UNSURE, bounds)
    assert [r.reason for r in (confident, planned, forced)] == ["confident", "final", "latency"]
    told = [r.receipt.accuracy.expected for r in (confident, planned, forced)]
    assert told == [plan.cases[0].confident, plan.cases[2].planned, plan.cases[0].forced]
    high, _, low = told
    overall = house.planner.accuracies[0]
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


def test_jobs_of_one_batch_leave_by_their_own_bounds(house: House) -> None:
    with house.held(0) as held:
        first = house.submit(UNSURE)
        held.wait_until_running()
        cheap, floor, free = (
            house.submit(UNSURE, Bounds(max_energy=0.05)),
            house.submit(SURE, Bounds(min_accuracy=0.7)),
            house.submit(UNSURE, Bounds(max_energy=0.09)),
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
    assert (0, 3) in house.network.batches


def test_a_shared_batch_shares_its_energy(house: House) -> None:
    with house.held(0) as held:
        house.submit(SURE)
        held.wait_until_running()
        pair = [house.submit(SURE), house.submit(SURE)]
    for job in pair:
        assert job.future.result(PATIENCE).receipt.energy.value == pytest.approx(0.02)


def test_a_cancelled_job_answers_at_the_end_of_its_segment(house: House) -> None:
    with house.held(1) as held:
        job = house.submit(UNSURE, Bounds(min_accuracy=0.7))
        held.wait_until_running()
        house.worker.cancel(job)
        assert not job.future.done()
    result = job.future.result(PATIENCE)
    assert (result.exit, result.reason) == (1, "cancelled")
    assert result.receipt.accuracy.expected == job.plan.cases[1].forced
    assert result.receipt.accuracy.met is False
    assert [segment for segment, _ in house.network.batches] == [0, 1]


def test_a_cancelled_answer_that_was_confident_is_told_as_such(house: House) -> None:
    with house.held(0) as held:
        job = house.submit(SURE, Bounds(min_accuracy=0.7))
        held.wait_until_running()
        house.worker.cancel(job)
    accuracy = job.future.result(PATIENCE).receipt.accuracy
    assert accuracy.expected == job.plan.cases[0].confident
    assert (accuracy.guarantee, accuracy.met) == (0.95, True)


def test_a_job_cancelled_before_it_ran_has_no_answer(house: House) -> None:
    with house.held(0) as held:
        running = house.submit(UNSURE)
        held.wait_until_running()
        waiting = house.submit(UNSURE)
        house.worker.cancel(waiting)
        with pytest.raises(Draining):
            waiting.future.result(PATIENCE)
    assert running.future.result(PATIENCE).reason == "final"


def test_a_suspended_job_that_is_cancelled_answers_at_once(house: House) -> None:
    with house.held(0) as held:
        suspended = house.submit(UNSURE)
        held.wait_until_running()
        urgent = house.submit(UNSURE, priority=1)
        with house.held(0) as held_again:
            held.release()
            held_again.wait_until_running()  # the urgent one, before the other's segment 1
            house.worker.cancel(suspended)
            result = suspended.future.result(PATIENCE)
    assert (result.exit, result.reason) == (0, "cancelled")
    assert urgent.future.result(PATIENCE).reason == "final"


def fail_at(segment: int) -> Callable[[int], None]:
    def before(running: int) -> None:
        if running == segment:
            raise RuntimeError("out of memory")

    return before


def test_a_network_that_fails_fails_its_jobs_alone(house: House) -> None:
    house.network.before = fail_at(0)
    job = house.submit(UNSURE)
    with pytest.raises(BackendError, match="segment 0: out of memory"):
        job.future.result(PATIENCE)
    house.network.before = lambda segment: None
    assert house.infer(UNSURE).reason == "final"


def test_an_answer_is_never_lost_to_a_later_failure(house: House) -> None:
    house.network.before = fail_at(1)
    result = house.infer(UNSURE, Bounds(min_accuracy=0.7))
    assert (result.exit, result.reason) == (0, "cancelled")
    assert result.receipt.accuracy.met is False
    assert house.infer(SURE).reason == "confident"


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
    house: House, decide: Callable[[ExitView], Any], caplog: pytest.LogCaptureFixture
) -> None:
    house.use(Policy(decide))
    with caplog.at_level(logging.ERROR, "delen.engine"):
        assert house.infer(SURE).reason == "confident"
        assert house.infer(UNSURE).reason == "final"
    assert house.counts.policy_failures == 4
    assert len(caplog.records) == 1


def test_a_policy_that_never_stops_ends_with_its_plan(house: House) -> None:
    house.use(Policy(lambda view: GO_ON))
    assert house.infer(SURE).reason == "final"
    result = house.infer(SURE, Bounds(max_energy=0.09))
    assert (result.exit, result.reason) == (1, "planned_exit")
    assert house.counts.policy_failures == 2


def test_a_policys_own_stop_claims_no_accuracy(house: House) -> None:
    house.use(Policy(lambda view: Decision("policy")))
    accuracy = house.infer(SURE, Bounds(min_accuracy=0.7)).receipt.accuracy
    assert (accuracy.expected, accuracy.guarantee, accuracy.met) == (None, None, False)


def test_a_policy_that_calls_an_unsure_answer_confident_is_not_certified(house: House) -> None:
    house.use(Policy(lambda view: Decision("confident")))
    job = house.submit(UNSURE, Bounds(min_accuracy=0.7))
    accuracy = job.future.result(PATIENCE).receipt.accuracy
    assert (accuracy.guarantee, accuracy.met) == (None, False)
    assert accuracy.expected == job.plan.cases[0].forced


def test_a_policy_sees_the_job_as_it_is(house: House) -> None:
    views: list[ExitView] = []

    def look(view: ExitView) -> Decision:
        views.append(view)
        return BoundsPolicy().decide(view)

    house.use(Policy(look))
    house.infer((0.1, 0.2, 0.3), Bounds(max_latency=0.5))
    assert [view.exit for view in views] == [0, 1, 2]
    assert [view.next_exit for view in views] == [1, 2, None]
    assert [view.elapsed for view in views] == pytest.approx([0.01, 0.02, 0.03])
    assert [view.energy for view in views] == pytest.approx([0.04, 0.08, 0.12])
    assert [view.energy_at_next for view in views] == pytest.approx([0.08, 0.12, 0.12])
    assert [view.time_to_next for view in views] == pytest.approx([0.01, 0.01, 0.0])
    assert [view.confidence for view in views] == pytest.approx([0.1, 0.2, 0.3])
    assert [view.macs for view in views] == [1000, 2000, 3000]


def test_the_backlog_counts_what_runs_and_what_waits(house: House) -> None:
    assert house.worker.backlog(9) == 0
    with house.held(0) as held:
        house.submit(UNSURE)
        held.wait_until_running()
        assert house.worker.backlog(1) == pytest.approx(0.03)
        house.submit(UNSURE, priority=3)
        assert house.worker.backlog(1) == pytest.approx(0.03)
        assert house.worker.backlog(3) == pytest.approx(0.06)
        assert house.worker.jobs_of("tiny") == 2
        assert house.worker.jobs_of("other") == 0


def test_the_backlog_can_be_asked_while_answers_are_written(house: House) -> None:
    seen: list[float] = []

    def look(view: ExitView) -> Decision:
        seen.append(house.worker.backlog(9))
        return BoundsPolicy().decide(view)

    house.use(Policy(look))
    assert house.infer(UNSURE).reason == "final"
    assert seen == pytest.approx([0.03, 0.02, 0.01])
    assert house.counts.policy_failures == 0


def test_what_segments_take_is_learnt(house: House) -> None:
    house.network.seconds = [0.02, 0.02, 0.02]
    for _ in range(40):
        house.infer(UNSURE)
    assert house.model.costs.slowdown.mean == pytest.approx(2, rel=0.05)
    assert house.counts.runs[:3] == [("tiny", 0, 1), ("tiny", 1, 1), ("tiny", 2, 1)]


def test_draining_waits_for_the_last_answer(house: House) -> None:
    assert house.worker.drain(0)
    with house.held(0) as held:
        jobs = [house.submit(UNSURE) for _ in range(3)]
        held.wait_until_running()
        assert not house.worker.drain(0)
    assert house.worker.drain(PATIENCE)
    assert [job.future.result(PATIENCE).reason for job in jobs] == ["final"] * 3


def test_closing_refuses_what_waits_and_answers_what_runs(house: House) -> None:
    with house.held(0) as held:
        running = house.submit(UNSURE)
        held.wait_until_running()
        waiting = [house.submit(UNSURE) for _ in range(3)]
        closing = threading.Thread(target=house.worker.close)
        closing.start()
        for job in waiting:
            with pytest.raises(Draining):
                job.future.result(PATIENCE)
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert (running.future.result(PATIENCE).reason, running.exit) == ("cancelled", 0)
    with pytest.raises(Draining):
        house.submit(UNSURE)
    house.worker.close()


def test_every_answer_is_told_of_once(house: House) -> None:
    for confidences in (SURE, UNSURE, SURE):
        house.infer(confidences)
    house.network.before = fail_at(0)
    failed = house.submit(SURE)
    with pytest.raises(BackendError):
        failed.future.result(PATIENCE)
    house.worker.close()
    assert [result.request_id for result in house.counts.results] == ["r1", "r2", "r3"]
