from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.calibration import THRESHOLDS, Calibration
from policies.thresholds import (
    certified_threshold,
    highest_floor,
    lossless_threshold,
    most_errors,
)

MakeCalibration = Callable[..., Calibration]


def exact_cdf(samples: int, rate: Fraction, most: int) -> Fraction:
    return sum(
        (comb(samples, k) * rate**k * (1 - rate) ** (samples - k) for k in range(most + 1)),
        Fraction(0),
    )


@given(st.integers(1, 60), st.integers(1, 99), st.sampled_from([0.05, 0.1, 0.01, 0.5]))
def test_most_errors_is_the_exact_binomial_quantile(
    samples: int, percent: int, delta: float
) -> None:
    found = most_errors(samples, percent / 100, delta)
    rate = Fraction(percent, 100)
    assert -1 <= found < samples
    if found >= 0:
        assert float(exact_cdf(samples, rate, found)) <= delta * (1 + 1e-9)
    assert float(exact_cdf(samples, rate, found + 1)) > delta * (1 - 1e-9)


def test_most_errors_at_the_ends() -> None:
    assert most_errors(100, 0.0, 0.05) == -1
    assert most_errors(100, 1.0, 0.05) == 99
    assert most_errors(10, 0.1, 0.05) == -1  # 0.9^10 is 0.35: ten samples prove nothing


def test_more_samples_allow_more_errors_but_never_the_rate_itself() -> None:
    allowed = [most_errors(n, 0.1, 0.05) / n for n in (100, 1000, 10_000, 100_000)]
    assert allowed == sorted(allowed)
    assert allowed[-1] < 0.1


def two_exits(blocks: list[tuple[float, bool, bool]], each: int) -> Calibration:
    """A table of blocks of ``each`` samples: confidence at exit 0, right there, right at exit 1."""
    confidence = np.repeat([[c, c] for c, _, _ in blocks], each, axis=0).astype(np.float32)
    correct = np.repeat([[first, last] for _, first, last in blocks], each, axis=0)
    return Calibration(confidence, correct)


def test_the_first_threshold_that_fails_ends_the_sequence() -> None:
    # Taking exit 0 costs the confident ones their right answers, and gives the unsure ones theirs:
    # the floor fails between, and would pass again at the end of the grid.
    table = two_exits(
        [
            (0.98, True, True),
            (0.80, False, True),
            (0.40, True, False),
            (0.40, True, True),
        ],
        each=250,
    )
    accuracy = table.curve(1).accuracy
    assert accuracy[0] == accuracy[-1] == 0.75
    assert accuracy.min() == 0.5
    chosen = certified_threshold(table, 1, 0.7, 0.95)
    assert chosen is not None
    assert 0.80 < chosen.value <= 0.805
    assert chosen.accuracy == 0.75


def test_the_safest_that_fails_means_infeasible(make_calibration: MakeCalibration) -> None:
    assert certified_threshold(make_calibration(0.5, 0.8), 1, 0.81, 0.95) is None


def test_an_accuracy_just_at_the_floor_is_not_certified(make_calibration: MakeCalibration) -> None:
    table = make_calibration(0.5, 0.8, samples=1000)
    assert certified_threshold(table, 1, 0.8, 0.95) is None
    assert certified_threshold(table, 1, 0.75, 0.95) is not None


@given(st.floats(0.3, 0.95), st.sampled_from([0.5, 0.9, 0.95, 0.99]), st.integers(0, 2))
def test_what_is_certified_keeps_the_floor_on_the_table_and_is_lowest_so(
    make_calibration: MakeCalibration, floor: float, level: float, deepest: int
) -> None:
    table = make_calibration(0.6, 0.8, 0.9, samples=2000)
    curve = table.curve(deepest)
    passed = curve.samples - curve.correct <= most_errors(curve.samples, 1 - floor, 1 - level)
    chosen = certified_threshold(table, deepest, floor, level)
    if chosen is None:
        assert not passed[0]
        return
    index = THRESHOLDS.tolist().index(chosen.value)
    assert passed[: index + 1].all()
    assert index + 1 == len(passed) or not passed[index + 1]
    assert chosen.accuracy == curve.accuracy[index] >= floor - 1e-9


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("deepest", [0, 1, 2])
def test_the_highest_floor_is_feasible_and_little_more_is_not(
    make_calibration: MakeCalibration, deepest: int, level: float
) -> None:
    table = make_calibration(0.6, 0.8, 0.9, samples=1500)
    best = highest_floor(table, deepest, level)
    assert table.accuracy(deepest) - 0.05 < best < table.accuracy(deepest)
    assert certified_threshold(table, deepest, best, level) is not None
    assert certified_threshold(table, deepest, best + 0.002, level) is None


def test_the_guarantee_holds_over_draws_of_the_calibration_images(
    make_calibration: MakeCalibration,
) -> None:
    draws, floor, level = 300, 0.82, 0.95
    population = make_calibration(0.7, 0.85, 0.9, samples=40_000)
    true_accuracy = dict(
        zip(THRESHOLDS.tolist(), population.curve(2).accuracy.tolist(), strict=True)
    )
    assert min(true_accuracy.values()) < floor < max(true_accuracy.values())
    rng = np.random.default_rng(11)
    violations = certified = 0
    for _ in range(draws):
        drawn = rng.integers(0, population.samples, 500)
        table = Calibration(population.confidence[drawn], population.correct[drawn])
        chosen = certified_threshold(table, 2, floor, level)
        certified += chosen is not None
        violations += chosen is not None and true_accuracy[chosen.value] < floor
    delta = 1 - level
    assert certified > draws / 2
    assert violations / draws <= delta + 3 * sqrt(delta * level / draws)


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.005, 0.02, 0.1]))
def test_a_lossless_threshold_loses_at_most_the_tolerance(
    make_calibration: MakeCalibration, seed: int, tolerance: float
) -> None:
    table = make_calibration(0.6, 0.85, 0.9, samples=800, seed=seed)
    for deepest in range(3):
        chosen = lossless_threshold(table, deepest, tolerance, 0.95)
        kept = table.right_answers(chosen.value, deepest).mean()
        assert kept >= table.accuracy(deepest) - tolerance - 1e-9
        assert chosen.accuracy == pytest.approx(kept)


def test_more_tolerance_stops_earlier(make_calibration: MakeCalibration) -> None:
    table = make_calibration(0.6, 0.8, 0.9)
    values = [lossless_threshold(table, 2, t, 0.95).value for t in (0.0, 0.01, 0.05, 0.5)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1] == 0
