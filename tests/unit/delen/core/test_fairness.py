from __future__ import annotations

from math import fsum, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.core.fairness import Use, fair_parts, fairness, jain


def test_jains_index() -> None:
    assert jain([2.0, 2.0, 2.0]) == pytest.approx(1.0)
    assert jain([3.0, 0.0, 0.0]) == pytest.approx(1 / 3)
    assert jain([0.0, 0.0]) is None
    assert jain([]) is None


def test_what_one_leaves_is_dealt_out_to_the_others_by_weight() -> None:
    assert fair_parts(10.0, [1.0, 9.0, 9.0], [1.0, 1.0, 2.0]) == pytest.approx([1.0, 3.0, 6.0])
    assert fair_parts(6.0, [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]) == [1.0, 2.0, 3.0]


rows = st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=1, max_size=8)


@given(rows, st.floats(0.01, 1.0))
def test_all_is_dealt_out_and_nobody_gets_more_than_it_asks(
    asked: list[tuple[float, float]], part: float
) -> None:
    demands, weights = zip(*asked, strict=True)
    total = part * fsum(demands)
    parts = fair_parts(total, demands, weights)
    assert fsum(parts) == pytest.approx(total)
    level = max(got / weight for got, weight in zip(parts, weights, strict=True))
    for got, demand, weight in zip(parts, demands, weights, strict=True):
        assert got <= demand * (1 + 1e-9)
        assert got >= min(demand, level * weight) * (1 - 1e-9)


def test_who_asks_little_and_gets_it_is_treated_as_well_as_who_gets_its_share() -> None:
    assert fairness([Use(1.0, 1.0, 10, 0), Use(1.0, 9.0, 90, 900)]) == pytest.approx(1.0)
    assert fairness([Use(3.0, 6.0, 60, 10), Use(1.0, 2.0, 20, 99)]) == pytest.approx(1.0)


def test_who_gets_nothing_counts_and_who_asks_nothing_does_not() -> None:
    starved = [Use(1.0, 10.0, 100, 0), Use(1.0, 0.0, 0, 100)]
    assert fairness(starved) == pytest.approx(0.5)
    assert fairness([Use(1.0, 10.0, 100, 0), Use(1.0, 0.0, 0, 0)]) == pytest.approx(1.0)


def test_what_is_unknown_is_not_judged() -> None:
    assert fairness([]) is None
    assert fairness([Use(1.0, nan, 5, 0), Use(1.0, 1.0, 5, 0)]) is None
