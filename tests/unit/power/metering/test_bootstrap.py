from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from power.metering.bootstrap import RESAMPLES, interval, resampled_means, rising, student

FIGURES = arrays(float, st.integers(1, 7), elements=st.floats(-100, 100))


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(4, 2.776), (5, 2.571), (9, 2.262), (29, 2.045), (1000, 1.962)]
)
def test_students_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert student(0.975, freedom) == pytest.approx(quantile, rel=1e-3)


def test_resampled_means_are_the_same_for_the_same_seed() -> None:
    rounds = np.random.default_rng(0).normal(size=(5, 3))
    means = resampled_means(rounds, 7)
    assert means.shape == (RESAMPLES, 3)
    assert np.array_equal(means, resampled_means(rounds, 7))
    assert not np.array_equal(means, resampled_means(rounds, 8))
    assert means.mean(0) == pytest.approx(rounds.mean(0), abs=0.02)


def test_what_moves_a_whole_round_cancels_in_differences() -> None:
    drift = np.arange(5.0)[:, None]
    resamples = np.diff(resampled_means(drift + np.array([10.0, 12.5]), 0), axis=1)
    low, high = interval(resamples, 5)
    assert (low[0], high[0]) == pytest.approx((2.5, 2.5))


def test_intervals_of_five_rounds_hold_the_mean_nine_times_in_ten() -> None:
    """Percentiles alone would hold it in 83 %."""
    held = 0
    for seed in range(200):
        rounds = np.random.default_rng(seed).normal(size=(5, 1))
        low, high = interval(resampled_means(rounds, seed), 5)
        held += bool(low[0] <= 0 <= high[0])
    assert held >= 180


@pytest.mark.parametrize(
    ("figures", "fitted"),
    [
        ([1.0, 2.0, 4.0], [1.0, 2.0, 4.0]),
        ([1.0, 3.0, 2.0, 4.0], [1.0, 2.5, 2.5, 4.0]),
        ([3.0, 2.0, 1.0], [2.0, 2.0, 2.0]),
        ([-1.0, 2.0], [0.0, 2.0]),
        ([4.0, 1.0, 3.0, 0.0, 9.0], [2.0, 2.0, 2.0, 2.0, 9.0]),
    ],
)
def test_what_falls_is_levelled(figures: list[float], fitted: list[float]) -> None:
    assert rising(np.array(figures)) == pytest.approx(fitted)
    assert rising(np.array([figures, figures]))[1] == pytest.approx(fitted)


@given(FIGURES)
def test_the_fit_rises_from_nothing_and_fits_itself(figures: np.ndarray) -> None:
    fitted = rising(figures)
    assert fitted[0] >= 0
    assert all(low <= high + 1e-9 for low, high in pairwise(fitted))
    assert rising(fitted) == pytest.approx(fitted, abs=1e-9)


@given(FIGURES, st.integers(0, 2**31))
def test_no_other_rising_sequence_is_nearer(figures: np.ndarray, seed: int) -> None:
    other = np.sort(np.random.default_rng(seed).uniform(0, 100, len(figures)))
    nearest = np.sum((rising(figures) - figures) ** 2)
    assert nearest <= np.sum((other - figures) ** 2) + 1e-6
