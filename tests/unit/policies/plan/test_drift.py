from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from policies.plan.drift import ODDS, DriftTest


def outcomes(rates: list[tuple[int, float]], seed: int) -> list[bool]:
    """So many outcomes at each rate of wrong ones, one stretch after the other."""
    rng = np.random.default_rng(seed)
    return [bool(wrong) for count, rate in rates for wrong in rng.random(count) < rate]


def refuted_after(wrongs: list[bool], promised: float, delta: float) -> int | None:
    """How many outcomes it took, None if it held to the end."""
    test = DriftTest(delta)
    for number, wrong in enumerate(wrongs, start=1):
        test.add(wrong, promised)
        if not test.holds:
            return number
    return None


@pytest.mark.parametrize(("rate", "delta"), [(0.08, 0.1), (0.3, 0.2), (0.01, 0.05)])
def test_a_promise_that_is_just_kept_is_seldom_refuted_however_often_one_looks(
    rate: float, delta: float
) -> None:
    runs = 100
    alarms = sum(
        refuted_after(outcomes([(800, rate)], seed), rate, delta) is not None
        for seed in range(runs)
    )
    assert alarms / runs <= delta + 2 * sqrt(delta * (1 - delta) / runs)


def test_promises_that_change_with_every_outcome_hold_together() -> None:
    rng, delta, runs = np.random.default_rng(8), 0.1, 100
    alarms = 0
    for _ in range(runs):
        test = DriftTest(delta)
        for promised in rng.choice([0.02, 0.1, 0.4], 500).tolist():
            test.add(bool(rng.random() < promised), promised)
        alarms += not test.holds
    assert alarms / runs <= delta + 2 * sqrt(delta * (1 - delta) / runs)


@pytest.mark.parametrize("good", [0, 300, 5000])
@pytest.mark.parametrize(("shifted", "within"), [(0.16, 900), (0.3, 150), (0.6, 50)])
def test_a_shift_is_found_however_long_all_was_well(good: int, shifted: float, within: int) -> None:
    for seed in range(5):
        wrongs = outcomes([(good, 0.06), (2000, shifted)], seed)
        found = refuted_after(wrongs, 0.08, 0.05)
        assert found is not None
        assert good < found <= good + within


def test_the_expected_stake_of_a_kept_promise_never_grows() -> None:
    """Over both outcomes, weighted by a promise that is just kept, for every bet."""
    for promised in (0.001, 0.1, 0.5, 0.99):
        for odds in ODDS:
            scale = 1 + promised * (odds - 1)
            assert promised * odds / scale + (1 - promised) / scale == pytest.approx(1)


def test_evidence_stays_once_it_was_there() -> None:
    test = DriftTest(0.05)
    assert (test.evidence, test.holds, test.samples) == (1.0, True, 0)
    while test.holds:
        test.add(True, 0.1)
    found = test.samples
    for _ in range(1000):
        test.add(False, 0.1)
    assert not test.holds
    assert test.evidence >= 20
    assert (test.samples, test.errors) == (found + 1000, found)
    assert test.promised == pytest.approx(0.1 * test.samples)


@pytest.mark.parametrize("promised", [0.0, 1.0])
def test_promises_at_the_ends(promised: float) -> None:
    test = DriftTest(0.05)
    for _ in range(30):
        test.add(True, promised)
    assert test.holds == (promised == 1.0)


def tracks(count: int, size: int, rate: float, seed: int) -> list[bool]:
    """Outcomes of ``count`` groups, one after the other; those of one group are much alike."""
    rng = np.random.default_rng(seed)
    return [
        bool(wrong) for own in rng.beta(rate, 1 - rate, count) for wrong in rng.random(size) < own
    ]


def test_a_kept_promise_is_seldom_refuted_by_groups_of_outcomes() -> None:
    runs, size, delta = 60, 10, 0.1
    alarms = {1: 0, size: 0}
    for seed in range(runs):
        outcomes = tracks(80, size, 0.08, seed)
        for group in alarms:
            test = DriftTest(delta, group)
            for wrong in outcomes:
                test.add(wrong, 0.08)
            alarms[group] += not test.holds
    limit = delta + 2 * sqrt(delta * (1 - delta) / runs)
    assert alarms[size] / runs <= limit
    assert alarms[1] / runs > limit


def test_a_shift_is_found_by_groups_of_outcomes() -> None:
    for seed in range(5):
        test = DriftTest(0.05, 10)
        for wrong in tracks(150, 10, 0.4, seed):
            test.add(wrong, 0.08)
        assert not test.holds
