from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.core.frontier import Choice, Frontier
from policies.energy.demand import Demand, least_price, price_range, watts


def frontier(scale: float = 1.0) -> Frontier:
    points = ((0.05, 0.8), (0.10, 0.88), (0.20, 0.90))
    return Frontier(tuple(Choice(0, None, scale * joules, right) for joules, right in points))


def test_the_rate_of_steady_arrivals_is_found_at_once_and_stays() -> None:
    demand, choices = Demand(2.0), frontier()
    for index in range(1000):
        demand.arrived(index / 20, choices)
        if index in (40, 200, 999):
            ((rate, of),) = demand.rates(index / 20)
            assert rate == pytest.approx(20, rel=0.25 if index == 40 else 0.05)
            assert of is choices


def test_a_rate_follows_a_change_within_some_time_constants_and_is_forgotten() -> None:
    demand, choices = Demand(2.0), frontier()
    for index in range(200):
        demand.arrived(index / 20, choices)
    for index in range(400):
        demand.arrived(10 + index / 40, choices)
    assert watts(demand.rates(20.0), 0.0) == pytest.approx(40 * 0.2, rel=0.05)
    assert watts(demand.rates(22.0), 0.0) == pytest.approx(40 * 0.2 * 0.37, rel=0.1)
    assert demand.rates(33.0) == ()


def test_many_frontiers_cost_no_arrivals() -> None:
    demand = Demand(10.0)
    for index in range(1000):
        demand.arrived(index / 20, frontier())
    rates = demand.rates(50.0)
    assert len(rates) < 50
    assert sum(rate for rate, _ in rates) == pytest.approx(20, rel=0.1)


@given(
    st.lists(st.tuples(st.floats(0.1, 50), st.floats(0.1, 10)), min_size=1, max_size=5),
    st.floats(0, 300),
)
def test_the_price_found_is_just_enough(load: list[tuple[float, float]], allowed: float) -> None:
    rates = [(rate, frontier(scale)) for rate, scale in load]

    def watts_at(price: float) -> float:
        return watts(rates, price)

    price = least_price(watts_at, allowed, price_range(rates))
    if price == inf:
        assert watts_at(inf) > allowed
    else:
        assert watts_at(price) <= allowed
    if 0 < price < inf:
        assert watts_at(price / 1.01) > allowed


def test_where_there_is_nothing_to_choose_only_a_refusal_saves() -> None:
    rates = [(10.0, Frontier((Choice(0, None, 0.1, 0.8),)))]
    assert price_range(rates) is None
    assert least_price(lambda price: watts(rates, price), 0.5, None) == inf
    assert least_price(lambda price: watts(rates, price), 1.5, None) == 0.0


def test_a_rate_asked_for_as_of_before_the_first_arrival_is_not_negative() -> None:
    """A controller's tick may have begun seconds before a request that it then hears of."""
    for late in (0.5, 1.0, 3.0):
        demand = Demand(2.0)
        demand.arrived(10.0, frontier())
        assert 0 < watts(demand.rates(10.0 - late), 0.0) < 10
