from __future__ import annotations

import pytest

from delen.scheduler.shares import BURST, MEMORY, REQUESTS, Shares


def granted(shares: Shares, rates: dict[str, float], seconds: float) -> dict[str, float]:
    """Device seconds a second within the shares, of tenants that ask 1 ms so often a second."""
    due = dict.fromkeys(rates, 0.0)
    taken = dict.fromkeys(rates, 0.0)
    while True:
        tenant = min(due, key=due.__getitem__)
        now = due[tenant]
        if now > seconds:
            return {name: total / seconds for name, total in taken.items()}
        if shares.take(now, tenant, 0.001):
            taken[tenant] += 0.001
        due[tenant] = now + 1 / rates[tenant]


def test_an_only_tenant_is_never_behind() -> None:
    shares = Shares()
    assert all(shares.take(0.001 * n, "alone", 1.0) for n in range(1000))
    assert not shares.is_behind(1.0, "alone")


def test_a_tenant_that_floods_gets_its_share_and_leaves_the_others_theirs() -> None:
    got = granted(Shares(), {"calm": 200.0, "flood": 5000.0}, 20.0)
    assert got["calm"] == pytest.approx(0.2, abs=0.01)
    assert got["flood"] == pytest.approx(0.5, abs=0.02)


def test_shares_are_by_weight_and_the_weight_can_be_changed() -> None:
    shares = Shares({"heavy": 3.0})
    got = granted(shares, {"heavy": 5000.0, "light": 5000.0}, 20.0)
    assert got["heavy"] == pytest.approx(0.75, abs=0.02)
    assert shares.share("heavy") == pytest.approx(0.75)
    shares.set_weight("light", 3.0)
    assert shares.share("heavy") == pytest.approx(0.5)
    assert shares.weight("light") == 3.0


def test_two_lanes_have_twice_as_much_to_share() -> None:
    got = granted(Shares(lanes=2), {"a": 5000.0, "b": 5000.0}, 20.0)
    assert got["a"] == pytest.approx(1.0, abs=0.03)


def test_a_burst_within_the_savings_is_not_behind() -> None:
    shares = Shares()
    shares.take(0.0, "other", 0.001)
    burst = [shares.take(0.0, "burst", 0.001) for _ in range(200)]
    assert sum(burst) == pytest.approx(1000 * BURST / 2, abs=1)


def test_where_requests_take_long_some_of_them_are_no_flood() -> None:
    shares = Shares()
    shares.take(0.0, "other", 0.04)
    burst = [shares.take(0.0, "burst", 0.04) for _ in range(3 * REQUESTS)]
    assert sum(burst) == REQUESTS


def test_one_request_that_took_long_is_forgotten() -> None:
    shares = Shares()
    shares.take(0.0, "other", 10.0)
    for _ in range(1000):
        shares.take(0.0, "other", 0.001)
    burst = [shares.take(0.0, "burst", 0.001) for _ in range(200)]
    assert sum(burst) == pytest.approx(1000 * BURST / 2, abs=1)


def test_a_tenant_that_is_gone_leaves_its_share_to_the_others() -> None:
    shares = Shares()
    shares.take(0.0, "gone", 0.001)
    shares.take(0.0, "here", 0.001)
    assert shares.share("here") == pytest.approx(0.5)
    shares.take(MEMORY + 1, "here", 0.001)
    assert shares.share("here") == 1.0


def test_work_that_ended_early_is_given_back() -> None:
    shares = Shares()
    shares.take(0.0, "other", 0.001)
    while shares.take(0.0, "a", 0.001):
        pass
    assert shares.is_behind(0.0, "a")
    shares.settle("a", 0.001, 0.0)
    assert not shares.is_behind(0.0, "a")
    shares.settle("unknown", 1.0, 1.0)


def test_a_clock_that_steps_back_deals_nothing_out_twice() -> None:
    shares = Shares()
    for _ in range(100):
        shares.take(10.0, "a", 0.01)
        shares.take(0.0, "b", 0.01)
    assert shares.is_behind(10.0, "a")


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_weights_are_above_0(weight: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Shares({"a": weight})
    with pytest.raises(ValueError, match="above 0"):
        Shares().set_weight("a", weight)
