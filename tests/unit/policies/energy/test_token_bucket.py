from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.energy.token_bucket import TokenBucket


def test_a_bucket_without_watts_limits_nothing() -> None:
    pace = TokenBucket()
    pace.spend(5.0)
    assert pace.allowance(1.0) == inf
    assert pace.wait(1.0) == 0.0


def test_a_full_bucket_lets_any_one_request_through_which_it_then_owes() -> None:
    pace = TokenBucket()
    pace.set(2.0, 0.5, 0.0)
    assert pace.allowance(0.0) == inf
    pace.spend(3.5)
    assert pace.allowance(1.0) == 0.0
    assert pace.wait(0.25) == pytest.approx(0.625)
    assert pace.allowance(1.625) == pytest.approx(0.25)
    assert pace.allowance(2.0) == inf


def test_where_nothing_is_left_nothing_passes() -> None:
    pace = TokenBucket()
    pace.set(0.0, 0.5, 0.0)
    assert pace.allowance(10.0) == 0.0
    assert pace.wait(0.1) == inf


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0.01, 1.0)), max_size=60))
def test_no_stretch_takes_more_than_its_watts_the_depth_and_one_request(
    asked: list[tuple[float, float]],
) -> None:
    pace, now, spent = TokenBucket(), 0.0, [(0.0, 0.0)]
    pace.set(2.0, 0.5, 0.0)
    for wait, joules in asked:
        now += wait
        if joules <= pace.allowance(now):
            pace.spend(joules)
            spent.append((now, joules))
    for index, (began, _) in enumerate(spent):
        total = 0.0
        for ended, joules in spent[index:]:
            total += joules
            assert total <= 2.0 * (ended - began) + 0.5 + 1.0 + 1e-9
