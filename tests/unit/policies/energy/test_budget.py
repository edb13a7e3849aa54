from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.core.energy_status import Budget
from delen.core.frontier import Choice, Frontier
from policies.energy.budget import TenantBudget
from policies.energy.constraint import Market
from policies.energy.demand import price_range, watts

FRONTIER = Frontier((Choice(0, None, 0.05, 0.8), Choice(1, None, 0.10, 0.88)))


def market(rate: float) -> Market:
    rates = [(rate, FRONTIER)]
    return Market(lambda price: watts(rates, price), price_range(rates))


IDLE = Market(lambda price: 0.0, None)

requests = st.lists(
    st.tuples(st.floats(0.0, 20.0), st.floats(0.01, 8.0), st.floats(0.0, 1.0)),
    min_size=1,
    max_size=80,
)


@given(requests)
def test_no_stretch_of_a_period_ever_takes_more_than_the_budget(
    asked: list[tuple[float, float, float]],
) -> None:
    """Requests take at most what was set aside for them, and give the rest back."""
    budget, now, spent = Budget(10.0, 60.0), 0.0, []
    own = TenantBudget("cam", budget, now)
    for wait, joules, share in asked:
        now += wait
        own.tick(now, IDLE)
        if joules <= own.allowance(now):
            own.charge(joules)
            own.charge((share - 1) * joules)
            spent.append((now, share * joules))
        within = sum(used for time, used in spent if time > now - budget.period)
        assert within <= budget.joules * (1 + 1e-9)
        assert own.balance >= -1e-9


@given(requests, st.floats(0.01, 10.0))
def test_what_was_refused_is_allowed_after_the_time_that_was_named(
    asked: list[tuple[float, float, float]], least: float
) -> None:
    own, now = TenantBudget("cam", Budget(10.0, 60.0), 0.0), 0.0
    for wait, joules, _ in asked:
        now += wait
        own.tick(now, IDLE)
        if joules <= own.allowance(now):
            own.charge(joules)
    if least > own.allowance(now):
        refusal = own.refuse(least, now)
        assert 0 < refusal.retry_after <= 91.0
        later = now + refusal.retry_after + 1e-6
        for tick in range(1, 601):
            own.tick(now + tick / 600 * refusal.retry_after, IDLE)
        assert own.allowance(later) >= least * (1 - 1e-6)


def drain(own: TenantBudget, until: float, joules: float, every: float) -> list[float]:
    """Times at which a request of ``joules`` each ``every`` seconds was admitted."""
    admitted, now = [], 0.0
    while now < until:
        own.tick(now, IDLE)
        if joules <= own.allowance(now):
            own.charge(joules)
            admitted.append(now)
        now += every
    return admitted


def test_a_rush_spends_half_at_once_and_the_rest_at_the_speed_that_lasts() -> None:
    own = TenantBudget("cam", Budget(10.0, 60.0), 0.0)
    admitted = drain(own, 59.0, 0.1, 0.05)
    assert sum(time < 3 for time in admitted) == pytest.approx(50, abs=4)
    for second in range(5, 55, 10):
        assert 4 <= sum(second <= time < second + 10 for time in admitted) <= 14
    assert len(admitted) == pytest.approx(100, abs=5)


def test_the_refusal_names_the_tenant_the_budget_and_the_figures() -> None:
    own = TenantBudget("cam", Budget(1.0, 60.0), 0.0)
    own.charge(1.0)
    error = own.refuse(0.05, 0.0)
    assert error.code == "budget_exhausted"
    assert "'cam', 1 J in 60 s, has 0 J to spend now, less than the 0.05 J" in str(error)
    assert 0 < error.retry_after <= 91
    never = own.refuse(2.0, 0.0)
    assert "is less than the 2 J" in str(never)
    assert never.retry_after == 60


@pytest.mark.parametrize(("rate", "price"), [(5.0, 0.0), (15.0, 1.6), (40.0, inf)])
def test_the_price_makes_the_demand_last(rate: float, price: float) -> None:
    own = TenantBudget("cam", Budget(60.0, 60.0), 0.0)
    own.tick(0.1, market(rate))
    assert own.price == pytest.approx(price, rel=0.01)
    status = own.status()
    assert (status.name, status.unit, status.limit) == ("budget/cam", "J", 60.0)
    assert status.binding is (price > 0)
    assert "60 J of 60 J in 60 s are left" in status.explanation


def test_the_price_rises_as_the_budget_is_spent() -> None:
    own = TenantBudget("cam", Budget(60.0, 60.0), 0.0)
    own.tick(0.1, market(8.0))
    assert own.price == 0.0
    own.charge(25.0)
    own.tick(0.2, market(8.0))
    assert own.price > 0.0
    own.tick(61.0, market(8.0))
    assert own.price == 0.0


def test_corrections_change_the_balance_either_way() -> None:
    own = TenantBudget("cam", Budget(10.0, 60.0), 0.0)
    own.charge(4.0)
    own.charge(-1.0)
    own.charge(0.5)
    state = own.state(1.0)
    assert (state.balance, state.spent) == pytest.approx((6.5, 3.5))
    assert own.state(70.0).balance == pytest.approx(10.0)


def test_what_is_given_back_does_not_come_back_before_its_time() -> None:
    """Each request is charged 3 J at first and takes 1 J: the second one counts for a period."""
    own = TenantBudget("cam", Budget(10.0, 60.0), 0.0)
    for moment, joules in ((0.0, 3.0), (1.5, 3.0), (3.0, -4.0)):
        own.allowance(moment)
        own.charge(joules)
    assert own.state(3.0).spent == pytest.approx(2.0)
    assert own.state(61.0).spent >= 1.0
    assert own.state(70.0).spent == pytest.approx(0.0)


def test_what_may_be_more_than_predicted_is_set_aside_until_the_request_ends() -> None:
    own = TenantBudget("cam", Budget(12.0, 60.0), 0.0)
    own.margin = 3.0
    assert own.allowance(0.0) == pytest.approx(2.0), "half of 12 J at once, a third of it predicted"
    own.reserve(1.5)
    assert own.allowance(0.0) == pytest.approx(0.5)
    assert own.state(0.0).balance == pytest.approx(12.0 - 4.5)
    own.reserve(-1.5)
    own.charge(1.5)
    assert own.allowance(0.0) == pytest.approx(1.5)
    never = own.refuse(5.0, 0.0)
    assert "15 J" in str(never)
    assert never.retry_after == 60


def test_the_price_reckons_with_the_most_that_requests_may_take() -> None:
    own = TenantBudget("cam", Budget(60.0, 60.0), 0.0)
    own.tick(0.1, market(8.0))
    assert own.price == 0.0
    own.margin = 1.5
    own.tick(0.2, market(8.0))
    assert own.price > 0.0


def test_a_new_budget_remembers_what_was_spent_under_the_old_one() -> None:
    old = TenantBudget("cam", Budget(10.0, 60.0), 0.0)
    old.charge(4.0)
    old.tick(30.0, IDLE)
    old.charge(2.0)
    larger = TenantBudget("cam", Budget(20.0, 60.0), 31.0)
    larger.adopt(old)
    assert larger.balance == pytest.approx(14.0)
    shorter = TenantBudget("cam", Budget(10.0, 10.0), 31.0)
    shorter.adopt(old)
    assert shorter.balance == pytest.approx(8.0)


def test_what_a_longer_budget_took_comes_back_within_the_new_period() -> None:
    """A slot of a day's budget, 864 s, reaches far beyond the next minute."""
    old = TenantBudget("cam", Budget(10.0, 86_400.0), 0.0)
    old.tick(1.0, IDLE)
    old.charge(4.0)
    own = TenantBudget("cam", Budget(5.0, 60.0), 2.0)
    own.adopt(old)
    assert own.balance == pytest.approx(1.0)
    own.tick(62.1, IDLE)
    assert own.balance == pytest.approx(5.0)
