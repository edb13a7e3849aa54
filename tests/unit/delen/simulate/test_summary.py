from __future__ import annotations

import json

import numpy as np
import pytest

from delen.simulate.outcome import Fate, Outcomes
from delen.simulate.summary import summarise


@pytest.fixture
def outcomes() -> Outcomes:
    """Of ``a``: right, wrong, late. Of ``b``: refused for its bounds, and for the load, and one
    that is right but cut off under its floor."""
    yes_no = np.zeros(6, bool)
    answered, infeasible, overloaded = Fate.ANSWERED, Fate.INFEASIBLE, Fate.OVERLOADED
    return Outcomes(
        policy="test",
        exits=2,
        tenants=("a", "b"),
        tenant=np.array([0, 0, 0, 1, 1, 1], np.int32),
        arrived=np.arange(6.0),
        ended=np.arange(6.0) + 0.5,
        fate=np.array([answered, answered, answered, infeasible, overloaded, answered], np.int8),
        exit=np.array([0, 1, 1, -1, -1, 0], np.int8),
        latency=np.array([0.1, 0.2, 0.3, 0.0, 0.0, 0.4]),
        energy=np.array([1.0, 2.0, 2.0, 0.0, 0.0, 1.0]),
        seconds=np.array([1.0, 1.0, 1.0, 0.0, 0.0, 1.0]),
        correct=np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0]),
        missed_latency=np.array([False, False, True, False, False, False]),
        missed_accuracy=np.array([False, False, False, False, False, True]),
        missed_energy=yes_no,
        decision_seconds=np.array([1e-6, 3e-6]),
        policy_failures=0,
        failures=(),
    )


def test_the_figures_of_the_contract(outcomes: Outcomes) -> None:
    summary = summarise(outcomes, upper_bound=0.9, label_blind_bound=0.8)
    assert summary["policy"] == "test"
    assert (summary["requests"], summary["answered"], summary["refused"]) == (6, 4, 2)
    assert summary["missed"] == {"latency": 1, "accuracy": 1, "energy": 0}
    assert summary["effective_accuracy"] == pytest.approx(1 / 6)
    assert summary["accuracy"] == pytest.approx(3 / 4)
    assert (summary["upper_bound"], summary["label_blind_bound"]) == (0.9, 0.8)
    assert summary["latency_ms"]["p50"] == pytest.approx(250.0)
    assert summary["energy_j"] == pytest.approx(6.0)
    assert summary["exits"] == [0.5, 0.5]
    assert summary["decision_us"]["p50"] == pytest.approx(2.0)
    assert summary["violations"] == pytest.approx(3 / 5), "the infeasible one is none"
    json.dumps(summary)


def test_tenants_have_the_same_figures_and_are_compared(outcomes: Outcomes) -> None:
    summary = summarise(outcomes, None)
    assert set(summary["tenants"]) == {"a", "b"}
    assert summary["tenants"]["a"]["effective_accuracy"] == pytest.approx(1 / 3)
    assert summary["tenants"]["b"]["refused"] == 2
    # Of 4 s each should have had 2; b asked for that in two requests, of which one was refused.
    assert summary["fairness"]["time"] == pytest.approx((1.5 + 0.5) ** 2 / (2 * (1.5**2 + 0.5**2)))
    fair = summarise(outcomes, None, {"a": 3.0})
    assert fair["fairness"]["time"] == pytest.approx(1.0)
    a, b = 5 / 4.5, 1 / 1.5
    assert fair["fairness"]["energy"] == pytest.approx((a + b) ** 2 / (2 * (a**2 + b**2)))


def test_energy_that_is_unknown_is_not_0(outcomes: Outcomes) -> None:
    outcomes.energy[0] = np.nan
    summary = summarise(outcomes, None)
    assert summary["energy_j"] is None
    assert summary["fairness"]["energy"] is None


def test_answers_that_cannot_be_judged_are_left_out(outcomes: Outcomes) -> None:
    outcomes.correct[1] = np.nan
    summary = summarise(outcomes, None)
    assert summary["accuracy"] == 1.0
    assert summary["effective_accuracy"] == pytest.approx(1 / 5)
    outcomes.correct[:] = np.nan
    unknown = summarise(outcomes, None)
    assert (unknown["accuracy"], unknown["effective_accuracy"]) == (None, None)


def test_nothing_asked_is_nothing_wrong(outcomes: Outcomes) -> None:
    nothing = summarise(outcomes[np.zeros(6, bool)], None)
    assert nothing["requests"] == 0
    assert nothing["latency_ms"]["p50"] is None
    assert nothing["violations"] == 0.0
    json.dumps(nothing)
