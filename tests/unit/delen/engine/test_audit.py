"""Audits and the fallback, on the executor with a network whose answers a test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds, Options
from delen.core.result import Result
from delen.engine.audit import MOST_AUDITS
from delen.engine.backends.base import Placement, SegmentRun
from delen.engine.guarantee_monitor import GuaranteeMonitor, MonitorSettings
from delen.engine.model import Model
from delen.errors import InfeasibleBound, InvalidInput
from delen.profile.cost_model import CostModel
from policies.exit.bounds import BoundsPolicy
from policies.exit.learning import FullRun
from policies.plan.planner import DEPARTED
from tests.builders.daemon import wait_until
from tests.builders.engine import PATIENCE, Recorder, build_model, build_runtime

FLOOR = Bounds(min_accuracy=0.7)


class FakeNetwork:
    """Three exits over uint8 images whose first three pixels are the classes that they answer;
    it is sure of all that it says. ``hold`` stops it before a segment while it is clear."""

    placement = Placement("onnxruntime", "cpu", 1)

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []
        self.confidence = 0.999
        self.hold: dict[int, threading.Event] = {}
        self.entered = threading.Event()

    def run(self, segment: int, samples: Sequence[Any], lane: int = 0) -> SegmentRun:
        if segment in self.hold:
            self.entered.set()
            assert self.hold[segment].wait(PATIENCE)
        self.runs.append((segment, len(samples)))
        logits = np.zeros((len(samples), 4), np.float32)
        for row, sample in enumerate(samples):
            logits[row, sample.reshape(-1)[segment]] = 9.0
        confidence = np.full(len(samples), self.confidence, np.float32)
        return SegmentRun(list(samples) if segment < 2 else [], logits, confidence)


class AuditHarness:
    """A runtime with one model that audits every ``1 / fraction`` th confident stop."""

    def __init__(
        self,
        bundle: Path,
        calibration: Calibration,
        make_costs: Callable[..., CostModel],
        lanes: int,
    ) -> None:
        self.network, self.observer = FakeNetwork(), Recorder()
        self.fraction = 1.0
        self.policy: Any = None

        def load(path: Path) -> Model:
            return build_model(
                path,
                make_costs(100.0, 100.0, 100.0, watts=4.0, lanes=lanes),
                network=self.network,
                calibration=calibration,
                policy=self.policy,
                monitor=GuaranteeMonitor("tiny", MonitorSettings(audit_fraction=self.fraction)),
            )

        self.runtime = build_runtime([bundle], load, observer=self.observer, lanes=lanes)

    def infer(self, *classes: int, bounds: Bounds = FLOOR, **options: Any) -> Result:
        return self.submit(*classes, bounds=bounds, **options).future.result(PATIENCE)

    def submit(self, *classes: int, bounds: Bounds = FLOOR, **options: Any) -> Any:
        image = np.zeros((4, 4, 1), np.uint8)
        image.reshape(-1)[:3] = classes
        return self.runtime.submit("tiny", image, bounds, Options(**options))

    def reload(self) -> None:
        self.runtime.unload("tiny")
        self.runtime.load("tiny")

    @property
    def monitor(self) -> GuaranteeMonitor:
        return self.runtime.store.ready("tiny").monitor

    def break_guarantee(self) -> None:
        while self.monitor.holds:
            self.monitor.audited(False, 0.01)


@pytest.fixture(params=[1, 2], ids=["one lane", "two lanes"])
def harness(
    request: pytest.FixtureRequest,
    tiny_bundle: Path,
    make_calibration: Callable[..., Calibration],
    make_costs: Callable[..., CostModel],
) -> Iterator[AuditHarness]:
    harness = AuditHarness(tiny_bundle, make_calibration(0.6, 0.8, 0.9), make_costs, request.param)
    yield harness
    harness.runtime.close()


def test_a_confident_answer_is_run_on_after_it_left(harness: AuditHarness) -> None:
    result = harness.infer(1, 2, 1)
    assert (result.exit, result.reason, result.index) == (0, "confident", 1)
    harness.observer.wait_for_audits(1)
    assert harness.observer.audits == [True]
    assert harness.network.runs == [(0, 1), (1, 1), (2, 1)]
    harness.infer(1, 1, 3)
    harness.observer.wait_for_audits(1)
    assert harness.observer.audits == [True, False]
    status = harness.monitor.status()
    assert (status.source, status.samples, status.errors) == ("agreement", 2, 1)


def test_only_confident_stops_are_audited(harness: AuditHarness) -> None:
    harness.infer(1, 1, 1, bounds=Bounds(max_energy=1000.0))
    harness.network.confidence = 0.0
    harness.infer(1, 1, 1)
    assert harness.runtime.drain(PATIENCE)
    assert harness.observer.audits == []
    assert harness.monitor.status().samples == 0


class Learner(BoundsPolicy):
    """Keeps what it is shown; ``breaks`` at the first."""

    def __init__(self, breaks: bool = False) -> None:
        self.shown: list[FullRun] = []
        self.is_shown = threading.Semaphore(0)
        self.breaks = breaks
        self.has_departed, self.raised = False, inf
        self.reports: list[str] = []

    def learn(self, run: FullRun) -> None:
        self.shown.append(run)
        self.is_shown.release()
        if self.breaks:
            raise RuntimeError("no")


def test_a_policy_that_learns_sees_full_runs_and_audits(harness: AuditHarness) -> None:
    harness.policy, harness.fraction = Learner(), 0.5
    harness.reload()
    for _ in range(2):  # confident at the first exit: the second one is audited
        harness.infer(1, 2, 1)
    assert harness.policy.is_shown.acquire(timeout=PATIENCE)
    harness.network.confidence = 0.0
    harness.infer(3, 1, 1)
    assert harness.policy.is_shown.acquire(timeout=PATIENCE)
    audit, full = harness.policy.shown
    assert (audit.agrees, audit.weight) == ([True, False, True], 2)
    assert (full.agrees, full.weight) == ([False, True, True], 1)
    assert full.confidences == [0.0] * 3
    assert full.seconds[0] < full.seconds[1] < full.seconds[2]


def test_a_policy_that_fails_to_learn_is_counted(harness: AuditHarness) -> None:
    harness.policy = Learner(breaks=True)
    harness.reload()
    harness.network.confidence = 0.0
    assert harness.infer(1, 1, 1).exit == 2
    wait_until(lambda: harness.observer.policy_failures == 1, "the failure")


def test_nothing_is_promised_while_inputs_are_others(harness: AuditHarness) -> None:
    harness.policy = Learner()
    harness.reload()
    harness.policy.has_departed = True
    accuracy = harness.infer(1, 1, 3).receipt.accuracy
    assert (accuracy.guarantee, accuracy.met) == (None, False)
    assert accuracy.unguaranteed is not None
    harness.policy.has_departed = False
    harness.infer(1, 1, 1, bounds=Bounds())
    accuracy = harness.infer(1, 1, 1).receipt.accuracy
    assert (accuracy.met, accuracy.unguaranteed) == (True, None)
    harness.observer.wait_for_audits(1)
    assert harness.observer.audits == [True], "the one before says nothing of the promise"


def test_plans_promise_nothing_while_inputs_are_others(harness: AuditHarness) -> None:
    harness.policy = Learner()
    harness.reload()
    before = harness.runtime.preview("tiny", FLOOR)
    assert (before.guarantee, before.unguaranteed) == (0.95, None)
    harness.policy.has_departed = True
    harness.infer(1, 1, 1)
    others = harness.runtime.preview("tiny", FLOOR)
    assert (others.feasible, others.guarantee, others.threshold) == (True, None, None)
    assert others.unguaranteed == DEPARTED
    assert harness.infer(1, 1, 1).reason == "final"
    assert not harness.monitor.status().holds
    harness.policy.raised = 0.99
    tuned = harness.runtime.preview("tiny", FLOOR)
    assert (tuned.guarantee, tuned.threshold, tuned.unguaranteed) == (None, 0.99, DEPARTED)
    assert harness.infer(1, 1, 1).exit == 0, "as confident as was certified for the others"
    harness.policy.has_departed = False
    harness.infer(1, 1, 1)
    after = harness.runtime.preview("tiny", FLOOR)
    assert (after.guarantee, after.threshold) == (0.95, before.threshold)
    assert harness.monitor.status().holds
    harness.monitor.follow("another size", has_departed=True)
    unseen = harness.runtime.preview("tiny", FLOOR)
    assert (unseen.threshold, unseen.unguaranteed) == (None, DEPARTED), "no sample of this size"


@pytest.mark.parametrize("harness", [2], indirect=True)
def test_on_another_lane_nobody_waits_for_an_audit(harness: AuditHarness) -> None:
    harness.network.hold = {1: threading.Event()}
    harness.infer(1, 1, 1)
    assert harness.network.entered.wait(PATIENCE)
    assert harness.runtime.lanes() == (2, 1)
    assert harness.infer(2, 2, 2).exit == 0, "while the audit is still inside"
    harness.network.hold[1].set()
    harness.observer.wait_for_audits(2)
    assert harness.observer.audits == [True, True]


@pytest.mark.parametrize("harness", [1], indirect=True)
def test_an_audit_waits_for_everything_else(harness: AuditHarness) -> None:
    harness.network.hold = {1: threading.Event()}
    first = harness.infer(1, 1, 1)
    assert first.reason == "confident"
    assert harness.network.entered.wait(PATIENCE)  # the audit is inside segment 1
    late = [harness.submit(2, 2, 2, priority=9) for _ in range(3)]
    harness.network.hold[1].set()
    for job in late:
        assert job.future.result(PATIENCE).exit == 0
    harness.observer.wait_for_audits(1)
    after_audits_first = harness.network.runs[2:]
    assert after_audits_first[0] == (0, 3)  # all three before the audit's last segment


@pytest.mark.parametrize("harness", [1], indirect=True)
def test_few_audits_wait_and_the_others_are_left_out(harness: AuditHarness) -> None:
    harness.network.hold = {1: threading.Event()}
    harness.infer(1, 1, 1)
    assert harness.network.entered.wait(PATIENCE)
    jobs = [harness.submit(1, 1, 1) for _ in range(3 * MOST_AUDITS)]
    harness.network.hold[1].set()
    for job in jobs:
        job.future.result(PATIENCE)
    harness.observer.wait_for_audits(MOST_AUDITS)
    harness.infer(1, 1, 3)
    harness.observer.wait_for_audits(1)
    assert harness.observer.audits == [True] * MOST_AUDITS + [False]


@pytest.mark.parametrize("harness", [2], indirect=True)
def test_the_audits_of_a_model_end_when_it_is_unloaded(harness: AuditHarness) -> None:
    inside = harness.network.hold[1] = threading.Event()
    harness.infer(1, 1, 3)
    assert harness.network.entered.wait(PATIENCE)
    harness.infer(1, 1, 3)  # its audit waits for the first one
    wait_until(lambda: harness.runtime.jobs("tiny") == 0, "the end of the job")
    harness.runtime.unload("tiny")
    harness.runtime.load("tiny")
    del harness.network.hold[1]
    inside.set()
    harness.infer(2, 2, 2)
    harness.observer.wait_for_audits(1)
    assert harness.observer.audits == [True]


def test_nobody_waits_for_audits_at_the_end(
    harness: AuditHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    joins, join = threading.Event(), threading.Thread.join

    def tell_and_join(thread: threading.Thread, timeout: float | None = None) -> None:
        joins.set()
        join(thread, timeout)

    harness.network.hold = {1: threading.Event()}
    harness.infer(1, 1, 1)
    assert harness.network.entered.wait(PATIENCE)
    assert harness.runtime.jobs("tiny") == 0
    assert harness.runtime.drain(PATIENCE)
    monkeypatch.setattr(threading.Thread, "join", tell_and_join)
    closing = threading.Thread(target=harness.runtime.close)
    closing.start()
    assert joins.wait(PATIENCE), "what runs is awaited, and nothing begins"
    harness.network.hold[1].set()
    join(closing, PATIENCE)
    assert not closing.is_alive()
    assert harness.observer.audits == []
    assert [segment for segment, _ in harness.network.runs] == [0, 1]


def test_a_network_that_fails_in_an_audit_still_answers(
    harness: AuditHarness, caplog: pytest.LogCaptureFixture, failed: Callable[[str], int]
) -> None:
    for _ in range(2):
        harness.infer(1, 1, 200)  # there is no class 200: its last segment raises
    assert harness.infer(1, 1, 1).exit == 0
    harness.observer.wait_for_audits(1)
    wait_until(lambda: failed("audit") == 2, "the count of the audits that failed")
    assert len(caplog.records) == 1, "the second is of the same kind"
    assert harness.observer.audits == [True]


def test_after_the_guarantee_broke_all_run_to_their_end(harness: AuditHarness) -> None:
    before = harness.infer(1, 1, 1)
    assert (before.receipt.accuracy.guarantee, before.receipt.accuracy.met) == (0.95, True)
    harness.break_guarantee()
    floor = harness.infer(1, 1, 1)
    assert (floor.exit, floor.reason) == (2, "final")
    accuracy = floor.receipt.accuracy
    assert (accuracy.bound, accuracy.guarantee, accuracy.met) == (0.7, None, False)
    assert not floor.receipt.met
    free = harness.infer(1, 1, 1, bounds=Bounds())
    assert (free.exit, free.reason, free.receipt.met) == (2, "final", True)
    capped = harness.infer(1, 1, 1, bounds=Bounds(min_accuracy=0.7, max_latency=290.0))
    assert (capped.exit, capped.reason) == (1, "planned_exit")
    assert capped.receipt.accuracy.met is False
    preview = harness.runtime.preview("tiny", FLOOR)
    assert (preview.feasible, preview.guarantee, preview.threshold) == (True, None, None)
    with pytest.raises(InfeasibleBound):
        harness.infer(1, 1, 1, bounds=Bounds(min_accuracy=0.99))


def test_an_answer_on_its_way_when_it_broke_is_not_covered(harness: AuditHarness) -> None:
    harness.network.hold = {0: threading.Event()}
    job = harness.submit(1, 1, 1)
    assert harness.network.entered.wait(PATIENCE)
    harness.break_guarantee()
    harness.network.hold[0].set()
    accuracy = job.future.result(PATIENCE).receipt.accuracy
    assert (accuracy.guarantee, accuracy.met) == (None, False)


def test_loading_the_model_again_starts_afresh(harness: AuditHarness) -> None:
    harness.break_guarantee()
    harness.runtime.drain(PATIENCE)
    harness.runtime.unload("tiny")
    harness.runtime.load("tiny")
    assert harness.monitor.holds
    assert harness.monitor.status().samples == 0


def test_labels_of_answers_are_counted(harness: AuditHarness) -> None:
    results = [harness.infer(1, 1, 1) for _ in range(3)]
    ids = [result.request_id for result in results]
    feedback = harness.runtime.feedback("tiny", {ids[0]: 1, ids[1]: "class 2", "nobody": 0})
    assert (feedback.accepted, feedback.wrong, feedback.unknown) == (2, 1, ("nobody",))
    with pytest.raises(InvalidInput, match="'class 9' is not a class of tiny"):
        harness.runtime.feedback("tiny", {ids[2]: 1, ids[0]: "class 9"})
    assert harness.runtime.feedback("tiny", {ids[2]: 1}).accepted == 1


def test_labels_show_a_shift_and_answers_fall_back(harness: AuditHarness) -> None:
    harness.fraction = 0.0
    harness.runtime.unload("tiny")
    harness.runtime.load("tiny")
    labels = {harness.infer(1, 1, 1).request_id: 0 for _ in range(40)}
    feedback = harness.runtime.feedback("tiny", labels)
    assert (feedback.guarantee.holds, feedback.guarantee.source) == (False, "labels")
    assert harness.infer(1, 1, 1).reason == "final"
