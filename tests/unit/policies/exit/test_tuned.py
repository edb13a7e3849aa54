from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
import pytest

from delen.bundle.calibration import Calibration
from delen.core.plan import ExitView
from policies.exit import tuned
from policies.exit.learning import FullRun
from policies.exit.tuned import SAMPLE, WINDOW, ModelThresholds, tuned_policy

PLANNED = 0.6
"""The threshold of every plan here."""


class Stream:
    """Requests to a network of two exits, the second of which is never reached in doubt. The first
    agrees with it where it is at least ``sure``."""

    def __init__(self, policy: ModelThresholds, make_view: Callable[..., ExitView]) -> None:
        self.policy = policy
        self.rng = np.random.default_rng(0)
        self._view = make_view

    def stops(self, confidence: float) -> bool:
        view = self._view(exit=0, exits=2, confidence=confidence, threshold=PLANNED, next_exit=1)
        return self.policy.decide(view).stop

    def send(self, count: int, low: float, high: float, sure: float) -> None:
        for confidence in self.rng.uniform(low, high, count):
            if not self.stops(confidence):
                agrees = [bool(confidence >= sure), True]
                self.policy.learn(FullRun([confidence, 1.0], agrees, [1.0, 2.0]))

    def normal(self, count: int) -> None:
        self.send(count, 0.0, 1.0, sure=0.5)

    def others(self, count: int, sure: float) -> None:
        self.send(count, 0.0, 0.9, sure)


@pytest.fixture
def table() -> Calibration:
    first = np.random.default_rng(1).uniform(0, 1, 4000)
    right = np.stack([first >= 0.5, np.ones(4000, bool)], axis=1)
    confidence = np.stack([first, np.ones(4000)], axis=1).astype(np.float32)
    return Calibration(confidence, right, np.where(right, 0, 1).astype(np.int32))


@pytest.fixture
def stream(table: Calibration, make_view: Callable[..., ExitView]) -> Stream:
    return Stream(tuned_policy(2).for_model(table, 1), make_view)


def test_thresholds_are_those_of_plans_while_inputs_are_as_calibrated(stream: Stream) -> None:
    stream.normal(5000)
    assert (stream.policy.raised, stream.policy.has_departed) == (0.0, False)
    assert stream.stops(PLANNED) and not stream.stops(PLANNED - 0.01)
    assert stream.policy.reports == []


def test_other_inputs_run_on_until_a_sample_certifies_a_threshold(stream: Stream) -> None:
    stream.normal(1000)
    stream.send(WINDOW, 0.0, 0.5, sure=0.4)
    assert stream.policy.raised == inf and stream.policy.has_departed
    assert not stream.stops(1.0)
    stream.send(SAMPLE, 0.0, 0.5, sure=0.4)
    assert stream.policy.raised < PLANNED, "certified for them, but not by the calibration"
    assert stream.stops(PLANNED) and not stream.stops(PLANNED - 0.01)


def test_the_threshold_is_above_what_the_sample_disagrees_on(stream: Stream) -> None:
    stream.send(4 * WINDOW + SAMPLE, 0.3, 1.0, sure=0.8)
    assert 0.75 <= stream.policy.raised <= 0.85
    assert not stream.stops(0.74) and stream.stops(0.86)


def test_others_stay_others_while_a_threshold_is_looked_for(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are planned meanwhile, on other lanes."""
    seen = []

    def look(*table: Any) -> None:
        seen.append((stream.policy.has_departed, stream.policy.raised))

    monkeypatch.setattr(tuned, "agreement_threshold", look)
    stream.send(4 * WINDOW + SAMPLE, 0.3, 1.0, sure=0.8)
    assert seen == [(True, inf)]


def test_nothing_stops_early_where_no_threshold_can_be_certified(stream: Stream) -> None:
    stream.send(4 * WINDOW + SAMPLE, 0.5, 1.0, sure=2.0)
    assert stream.policy.raised >= 1.0
    assert not stream.stops(0.999)


def test_others_stay_others_where_every_threshold_is_certified_for_them(stream: Stream) -> None:
    stream.send(4 * WINDOW + SAMPLE, 0.0, 0.5, sure=0.0)
    assert stream.policy.raised == 0.0 and stream.policy.has_departed
    stream.normal(3 * WINDOW)
    assert not stream.policy.has_departed


def test_the_calibration_counts_again_when_its_inputs_return(stream: Stream) -> None:
    stream.send(4 * WINDOW + SAMPLE, 0.3, 1.0, sure=0.8)
    stream.normal(3 * WINDOW)
    assert (stream.policy.raised, stream.policy.has_departed) == (0.0, False)
    assert stream.stops(PLANNED)
    assert "calibration" in stream.policy.reports[-1]


def test_audits_that_stand_for_many_are_no_sample(stream: Stream) -> None:
    stream.send(2 * WINDOW, 0.0, 0.5, sure=0.4)
    assert stream.policy.raised == inf
    for _ in range(2 * SAMPLE):
        stream.policy.learn(FullRun([0.4, 1.0], [True, True], [1.0, 2.0], weight=100.0))
    assert stream.policy.raised == inf


def test_each_model_has_thresholds_of_its_own(
    table: Calibration, make_view: Callable[..., Any]
) -> None:
    settings = tuned_policy(2)
    one, other = (Stream(settings.for_model(table, 1), make_view) for _ in range(2))
    one.send(4 * WINDOW, 0.0, 0.5, sure=0.4)
    assert one.policy.has_departed and not other.policy.has_departed
