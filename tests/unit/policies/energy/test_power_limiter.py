from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.energy.power_limiter import PowerLimiter


def test_a_bucket_without_watts_limits_nothing() -> None:
    limiter = PowerLimiter()
    limiter.spend(5.0)
    assert limiter.allowance(1.0) == inf
    assert limiter.wait(1.0) == 0.0


def test_a_full_bucket_lets_any_one_request_through_which_it_then_owes() -> None:
    limiter = PowerLimiter()
    limiter.set(2.0, 0.5, 0.0)
    assert limiter.allowance(0.0) == inf
    limiter.spend(3.5)
    assert limiter.allowance(1.0) == 0.0
    assert limiter.wait(0.25) == pytest.approx(0.625)
    assert limiter.allowance(1.625) == pytest.approx(0.25)
    assert limiter.allowance(2.0) == inf


def test_where_nothing_is_left_nothing_passes() -> None:
    limiter = PowerLimiter()
    limiter.set(0.0, 0.5, 0.0)
    assert limiter.allowance(10.0) == 0.0
    assert limiter.wait(0.1) == inf


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0.01, 1.0)), max_size=60))
def test_no_stretch_takes_more_than_its_watts_the_depth_and_one_request(
    asked: list[tuple[float, float]],
) -> None:
    limiter, now, spent = PowerLimiter(), 0.0, [(0.0, 0.0)]
    limiter.set(2.0, 0.5, 0.0)
    for wait, joules in asked:
        now += wait
        if joules <= limiter.allowance(now):
            limiter.spend(joules)
            spent.append((now, joules))
    for index, (began, _) in enumerate(spent):
        total = 0.0
        for ended, joules in spent[index:]:
            total += joules
            assert total <= 2.0 * (ended - began) + 0.5 + 1.0 + 1e-9
