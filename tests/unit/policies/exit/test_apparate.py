from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from delen.core.plan import ExitView
from policies.exit.apparate import BATCH, RAMP_BATCHES, UTILITIES, Ramps, apparate_policy
from policies.exit.learning import FullRun

EXITS = 5
SECONDS = [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.fixture
def ramps() -> Ramps:
    return Ramps(0.01, EXITS - 1)


def run(confidences: list[float], agrees: list[bool], weight: float = 1.0) -> FullRun:
    return FullRun([*confidences, 1.0], [*agrees, True], SECONDS, weight)


def teach(ramps: Ramps, batches: int, sure: float = 0.8, seed: int = 0) -> None:
    """Runs of which every exit agrees where it is at least ``sure``."""
    rng = np.random.default_rng(seed)
    for _ in range(batches * BATCH):
        confidences = np.sort(rng.uniform(0, 1, EXITS - 1)).tolist()
        ramps.learn(run(confidences, [each >= sure for each in confidences]))


def test_it_has_no_floors_and_leaves_nowhere_without_a_model(
    make_view: Callable[..., ExitView],
) -> None:
    policy = apparate_policy(EXITS)
    assert policy.by_threshold is False
    assert not policy.decide(make_view(exit=0, confidence=1.0)).stop


def test_nothing_leaves_before_the_first_batch(
    ramps: Ramps, make_view: Callable[..., ExitView]
) -> None:
    assert set(ramps.thresholds) == {0, 1, 2}
    assert not any(ramps.decide(make_view(exit=each, confidence=1.0)).stop for each in (0, 1, 2))


def test_thresholds_are_as_low_as_the_window_agrees(
    ramps: Ramps, make_view: Callable[..., ExitView]
) -> None:
    teach(ramps, 1, sure=0.5)
    assert max(ramps.thresholds.values()) > 0.3
    first = max(ramps.thresholds, key=lambda ramp: ramps.thresholds[ramp])
    assert ramps.decide(make_view(exit=first, confidence=0.999)).reason == "policy"
    assert not ramps.decide(make_view(exit=first, confidence=0.1)).stop
    assert not ramps.decide(make_view(exit=3, confidence=0.999)).stop, "no ramp"


def test_ramps_that_disagree_are_closed_at_the_second_violation(ramps: Ramps) -> None:
    teach(ramps, 1, sure=0.5)
    opened = {ramp for ramp, threshold in ramps.thresholds.items() if threshold > 0}
    assert opened
    for _ in range(2 * BATCH):
        ramps.learn(run([0.999] * 4, [False] * 4))
    assert ramps.thresholds[min(opened)] == 0.0


def test_an_audit_counts_for_the_answers_that_it_stands_for(ramps: Ramps) -> None:
    teach(ramps, 1, sure=0.5)
    before = dict(ramps.thresholds)
    for _ in range(BATCH - 1):
        ramps.learn(run([0.0] * 4, [True] * 4, weight=10_000.0))
    ramps.learn(run([0.999] * 4, [False] * 4))
    assert ramps.thresholds == before, "one answer in 150,000 is within the budget"


def test_a_ramp_where_nothing_leaves_is_dropped_and_one_tried_before(ramps: Ramps) -> None:
    rng = np.random.default_rng(0)
    for _ in range(BATCH * (UTILITIES + RAMP_BATCHES)):
        sure = float(rng.uniform(0.9, 1.0))
        ramps.learn(run([0.0, 0.0, sure, sure], [False, False, True, True]))
    assert list(ramps.thresholds) == [2]
    assert ramps.reports
    for _ in range(BATCH * RAMP_BATCHES):
        sure = float(rng.uniform(0.9, 1.0))
        ramps.learn(run([0.0, 0.0, sure, sure], [False, False, True, True]))
    assert list(ramps.thresholds) == [1, 2]


def test_a_network_of_one_exit_has_no_ramps() -> None:
    ramps = Ramps(0.01, 0)
    for _ in range(3 * BATCH):
        ramps.learn(FullRun([1.0], [True], [1.0]))
    assert ramps.thresholds == {}
