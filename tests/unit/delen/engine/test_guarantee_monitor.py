from __future__ import annotations

import logging
from pathlib import Path

import pytest

from delen.bundle.manifest import Manifest, load_bundle
from delen.core.events import EventBus
from delen.core.typed_reader import shown
from delen.engine.guarantee_monitor import GuaranteeMonitor, MonitorSettings, read_labels
from delen.errors import InvalidInput
from policies.plan.planner import DEPARTED
from policies.plan.promises import Terms

TERMS = Terms(0.8, 2, 0.9)


def promised(terms: Terms) -> float:
    return 1 - (terms.floor or 0.0)


def answered(watch: GuaranteeMonitor, count: int, first: int = 0) -> None:
    """Answers of class 0 with the ids r0, r1, ..."""
    for number in range(first, first + count):
        watch.remember(f"r{number}", 0, TERMS)


def test_labels_are_judged_against_what_was_answered() -> None:
    watch = GuaranteeMonitor()
    answered(watch, 4)
    feedback = watch.label({"r0": 0, "r1": 3, "gone": 1, "r2": 0}, promised)
    assert (feedback.accepted, feedback.wrong, feedback.unknown) == (3, 1, ("gone",))
    status = feedback.guarantee
    assert (status.holds, status.source, status.samples, status.errors) == (True, "labels", 3, 1)
    assert status.promised == pytest.approx(0.1)
    assert status.delta == 0.05


def test_a_label_given_twice_counts_once() -> None:
    watch = GuaranteeMonitor()
    answered(watch, 1)
    watch.label({"r0": 0}, promised)
    again = watch.label({"r0": 1}, promised)
    assert (again.accepted, again.wrong, again.repeated, again.unknown) == (0, 0, 1, ())
    assert again.guarantee.samples == 1


def test_only_the_last_answers_are_remembered() -> None:
    watch = GuaranteeMonitor("m", MonitorSettings(window=3))
    answered(watch, 5)
    feedback = watch.label({f"r{number}": 0 for number in range(5)}, promised)
    assert feedback.accepted == 3
    assert feedback.unknown == ("r0", "r1")
    none = GuaranteeMonitor("m", MonitorSettings(window=0))
    answered(none, 1)
    assert none.label({"r0": 0}, promised).unknown == ("r0",)


def test_an_answer_without_a_promise_says_nothing() -> None:
    watch = GuaranteeMonitor()
    watch.remember("free", 0, None)
    feedback = watch.label({"free": 1}, promised)
    assert (feedback.accepted, feedback.wrong) == (1, 1)
    assert (feedback.guarantee.samples, feedback.guarantee.source) == (0, None)


def test_a_broken_promise_is_told_once_and_stays_broken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = GuaranteeMonitor("camera")
    answered(watch, 200)
    with caplog.at_level(logging.WARNING, "delen.engine"):
        wrong = watch.label({f"r{n}": n % 2 for n in range(100)}, promised)
        right = watch.label({f"r{n}": 0 for n in range(100, 200)}, promised)
    assert not wrong.guarantee.holds
    assert wrong.guarantee.evidence >= 20
    assert not right.guarantee.holds
    assert not watch.holds
    assert [record.message for record in caplog.records] == [caplog.records[0].message]
    assert "the guarantee of camera no longer holds, by labels" in caplog.records[0].message


def test_a_track_of_wrong_answers_refutes_nothing_where_groups_are_known() -> None:
    for group, holds in ((1, False), (20, True)):
        watch = GuaranteeMonitor("signs", group=group)
        answered(watch, 200)
        feedback = watch.label({f"r{n}": int(n < 20) for n in range(200)}, promised)
        assert (feedback.wrong, feedback.guarantee.samples) == (20, 200)
        assert watch.holds is holds
        watch.audited(False, 0.1)
        assert watch.holds is holds


def test_the_order_of_labels_makes_no_run_of_errors() -> None:
    labels = {f"r{n}": 1 if n % 10 == 0 else 0 for n in range(400)}
    sorted_labels = dict(sorted(labels.items(), key=lambda item: -item[1]))
    watches = [GuaranteeMonitor(), GuaranteeMonitor()]
    for watch, given in zip(watches, (labels, sorted_labels), strict=True):
        answered(watch, 400)
        watch.label(given, promised)
    assert watches[0].holds
    assert watches[0].status() == watches[1].status()


def test_every_so_many_th_stop_is_audited() -> None:
    watch = GuaranteeMonitor("m", MonitorSettings(audit_fraction=0.25))
    assert [watch.audits() for _ in range(8)] == [0, 0, 0, 4] * 2
    assert [watch.audits(has_room=False) for _ in range(4)] == [0, 0, 0, 0]
    assert [watch.audits() for _ in range(4)] == [0, 0, 0, 8], "stands for those left out, too"
    assert not any(GuaranteeMonitor().audits() for _ in range(1000))
    every = GuaranteeMonitor("m", MonitorSettings(audit_fraction=1.0))
    assert all(every.audits() for _ in range(10))


def test_nothing_holds_while_inputs_of_any_size_are_others() -> None:
    events = EventBus()
    reader = events.read(lambda: None)
    watch = GuaranteeMonitor("m", events=events)
    for variant, has_departed in (("m", True), ("m", True), ("m-16", True), ("m", False)):
        watch.follow(variant, has_departed)
        assert (watch.unguaranteed, watch.status().holds) == (DEPARTED, False)
        assert watch.status().unguaranteed == DEPARTED
    watch.follow("m-16", has_departed=False)
    assert (watch.unguaranteed, watch.status().holds) == (None, True)
    names = ["guarantee_lost", "guarantee_regained"]
    assert [event.name for event in reader.take()[1]] == names
    watch.follow("m", has_departed=True)
    while watch.holds:
        watch.audited(False, 0.02)
    watch.follow("m", has_departed=False)
    assert not watch.status().holds, "what is refuted stays so"


def test_disagreement_breaks_the_guarantee_too() -> None:
    watch = GuaranteeMonitor("m", MonitorSettings(audit_fraction=0.5))
    assert watch.status().delta == 0.025
    for _ in range(50):
        watch.audited(True, 0.02)
    assert watch.holds
    while watch.holds:
        watch.audited(False, 0.02)
    status = watch.status()
    assert (status.source, status.holds) == ("agreement", False)
    assert status.evidence >= 40


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> Manifest:
    return load_bundle(tiny_bundle).manifest


def test_labels_are_indices_or_names(manifest: Manifest) -> None:
    assert read_labels({"a": 3, "b": "class 1"}, manifest) == {"a": 3, "b": 1}


@pytest.mark.parametrize("label", [4, -1, "horse", 1.0, True, None, [1]])
def test_what_is_no_class_is_named(manifest: Manifest, label: object) -> None:
    with pytest.raises(InvalidInput, match="class") as caught:
        read_labels({"a": 0, "b": label}, manifest)
    assert shown(label) in str(caught.value), "as JSON has it"
    assert caught.value.field == "labels"
