from __future__ import annotations

from fractions import Fraction
from math import comb, exp, inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from policies.plan.risk import (
    betting_bound,
    binomial_p,
    hoeffding_bentkus_p,
    least_groups,
    least_samples,
    most_errors,
    most_errors_bounded,
    shown_by_betting,
    upper_bound,
    upper_bound_bounded,
)


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


@given(st.integers(1, 300), st.floats(0.01, 0.99), st.sampled_from([0.05, 0.1, 0.5]))
def test_what_holds_for_any_loss_allows_no_more_errors(
    samples: int, rate: float, delta: float
) -> None:
    found = most_errors_bounded(samples, rate, delta)
    assert -1 <= found <= most_errors(samples, rate, delta)
    if found >= 0:
        assert hoeffding_bentkus_p(found / samples, samples, rate) <= delta
    assert hoeffding_bentkus_p((found + 1) / samples, samples, rate) > delta


def test_the_p_value_is_the_smaller_of_the_two_tails() -> None:
    assert hoeffding_bentkus_p(0.0, 50, 0.1) == pytest.approx(0.9**50)
    assert hoeffding_bentkus_p(0.3, 50, 0.1) == 1
    entropy = 0.05 * log(0.05 / 0.1) + 0.95 * log(0.95 / 0.9)
    bentkus = exp(1) * float(exact_cdf(200, Fraction(1, 10), 10))
    assert bentkus < exp(-200 * entropy)
    assert hoeffding_bentkus_p(0.05, 200, 0.1) == pytest.approx(bentkus)


@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from([0.05, 0.2]))
def test_upper_bounds_invert_the_tests(samples: int, share: float, delta: float) -> None:
    errors = round(share * samples)
    exact, general = upper_bound(errors, samples, delta), upper_bound_bounded(share, samples, delta)
    if errors == samples:
        assert exact == 1
    else:
        assert binomial_p(errors, samples, exact) == pytest.approx(delta, rel=1e-6)
    assert errors / samples <= exact
    assert share <= general
    assert hoeffding_bentkus_p(share, samples, min(1.0, general + 1e-9)) <= delta or general == 1


def test_bounds_of_real_losses_hold_over_draws() -> None:
    rng, delta = np.random.default_rng(3), 0.1
    losses = rng.beta(0.3, 1.5, (400, 200))
    below = [upper_bound_bounded(float(mean), 200, delta) < 0.3 / 1.8 for mean in losses.mean(1)]
    assert np.mean(below) <= delta


def test_the_samples_that_errors_take() -> None:
    assert least_samples(0.0, 0.05, 0.05) == 59
    assert least_samples(0.1, 0.1, 0.05) == inf
    assert least_samples(0.0, 0.0, 0.05) == inf
    few, many = least_samples(0.05, 0.1, 0.05), least_samples(0.09, 0.1, 0.05)
    assert few < many
    assert most_errors_bounded(int(few), 0.1, 0.05) >= int(0.05 * few)


def group_means(
    rng: np.random.Generator, rate: float, size: int, alike: float, count: int
) -> NDArray[np.float64]:
    """The mean errors of groups of ``size``, correlated within a group by ``alike``."""
    spread = (1 - alike) / alike
    own = rng.beta(rate * spread, (1 - rate) * spread, count)
    return rng.binomial(size, own) / size


@pytest.mark.parametrize("delta", [0.05, 0.2])
@pytest.mark.parametrize(("size", "alike"), [(30, 0.14), (5, 0.9), (1, 0.5)])
def test_the_bound_by_betting_is_seldom_below_the_true_mean(
    size: int, alike: float, delta: float
) -> None:
    rng, draws, rate = np.random.default_rng(4), 400, 0.08
    below = sum(
        betting_bound(group_means(rng, rate, size, alike, 150), delta) < rate for _ in range(draws)
    )
    assert below / draws <= delta + 2 * (delta * (1 - delta) / draws) ** 0.5


def test_betting_is_close_where_groups_differ_little() -> None:
    rng = np.random.default_rng(5)
    losses = group_means(rng, 0.05, 30, 0.14, 200)
    by_betting, general = betting_bound(losses, 0.05), upper_bound_bounded(losses.mean(), 200, 0.05)
    assert losses.mean() < by_betting < losses.mean() + 0.5 * (general - losses.mean())


def test_a_bound_by_betting_at_the_ends() -> None:
    assert betting_bound(np.ones(50), 0.05) == 1
    assert betting_bound(np.zeros(1), 0.05) == 1
    assert 0.029 < betting_bound(np.zeros(100), 0.05) < 0.032  # exact: 0.0295


def test_losses_of_a_share_are_bounded_as_a_ratio() -> None:
    rng, draws, delta = np.random.default_rng(6), 300, 0.1
    below = 0
    for _ in range(draws):
        shares = rng.choice([0.0, 0.2, 0.8], 150)
        losses = shares * (rng.random(150) < 0.1)
        below += betting_bound(losses, delta, shares) < 0.1
    assert below / draws <= delta + 2 * (delta * (1 - delta) / draws) ** 0.5
    close = betting_bound(np.zeros(200), 0.05, np.full(200, 0.5))
    assert close == pytest.approx(2 * betting_bound(np.zeros(200), 0.05), rel=0.05)


@pytest.mark.parametrize("allowed", [0.3, 0.1, 0.02])
def test_least_groups_are_just_enough(allowed: float) -> None:
    needed = int(least_groups(allowed, 0.05))
    assert betting_bound(np.zeros(needed), 0.05) <= allowed
    assert betting_bound(np.zeros(needed - 1), 0.05) > allowed
    assert least_samples(0, allowed, 0.05) <= needed <= 1.4 * least_samples(0, allowed, 0.05)


def test_no_number_of_groups_shows_that_nothing_is_ever_wrong() -> None:
    assert least_groups(0.0, 0.05) == inf


@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_a_rate_is_shown_where_the_bound_is_at_most_it(delta: float) -> None:
    rng = np.random.default_rng(3)
    losses = rng.beta(0.5, 4, (80, 12)) * rng.random(12)
    bounds = np.array([betting_bound(column, delta) for column in losses.T])
    for rate in (0.01, 0.05, 0.1, 0.2):
        assert shown_by_betting(losses, rate, delta).tolist() == (bounds <= rate).tolist()
    assert not shown_by_betting(np.zeros((50, 2)), 0.0, delta).any()
