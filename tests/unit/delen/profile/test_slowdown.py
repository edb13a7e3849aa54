from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.profile.slowdown import Slowdown


def after(belief: Slowdown, *ratios: float) -> Slowdown:
    for ratio in ratios:
        belief = belief.after(ratio * 0.004, 0.004)
    return belief


def test_at_first_the_profile_is_believed() -> None:
    assert Slowdown().mean == Slowdown().high(0.99) == 1


def test_a_slowdown_that_lasts_is_learnt_and_unlearnt() -> None:
    slow = after(Slowdown(), *[2.0] * 150)
    assert slow.mean == pytest.approx(2, rel=0.01)
    assert slow.high(0.99) == pytest.approx(2, rel=0.1)
    again = after(slow, *[1.0] * 150)
    assert again.mean == pytest.approx(1, rel=0.01)
    assert again.high(0.99) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("factor", [0.5, 5.0, 30.0])
def test_any_factor_is_followed(factor: float) -> None:
    assert after(Slowdown(), *[factor] * 250).mean == pytest.approx(factor, rel=0.02)


@pytest.mark.parametrize("outlier", [10.0, 100.0, 1e6])
def test_one_outlier_does_not_wreck_the_belief(outlier: float) -> None:
    struck = after(Slowdown(), *[1.0] * 50, outlier)
    assert struck.mean < 1.2
    assert struck.high(0.99) < 2.5
    assert after(struck, *[1.0] * 60).high(0.99) < 1.5


def test_spread_makes_the_high_factor_higher() -> None:
    unsteady = after(Slowdown(), *[0.8, 1.2] * 50)
    assert unsteady.mean == pytest.approx(1, abs=0.05)
    assert unsteady.high(0.99) > unsteady.high(0.9) > unsteady.high(0.5) == unsteady.mean


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_the_belief_stays_above_0_and_below_what_was_seen(ratios: list[float]) -> None:
    belief = after(Slowdown(), *ratios)
    assert 0 < belief.mean <= max([1.0, *ratios]) * (1 + 1e-9)
    assert belief.variance >= 0
