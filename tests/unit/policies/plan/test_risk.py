from __future__ import annotations

from fractions import Fraction
from math import comb, exp, inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.plan.risk import (
    binomial_p,
    hoeffding_bentkus_p,
    least_samples,
    most_errors,
    most_errors_bounded,
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
