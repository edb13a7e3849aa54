from __future__ import annotations

import pytest

from delen.scheduler.shares import BURST, MEMORY, MOST_UNSET, NEWCOMERS, REQUESTS, Shares

WARM = 8.0
"""Seconds until what tenants may use at once is used up."""


def known(shares: Shares, *tenants: str) -> Shares:
    """``shares`` after two small requests of each of ``tenants``: then none is a newcomer."""
    for tenant in (*tenants, *tenants):
        shares.take(0.0, tenant, 1e-9)
    return shares


def granted(shares: Shares, rates: dict[str, float], seconds: float) -> dict[str, float]:
    """Device seconds a second within the shares, of tenants that ask 1 ms so often a second."""
    due = dict.fromkeys(rates, 0.0)
    taken = dict.fromkeys(rates, 0.0)
    while True:
        tenant = min(due, key=due.__getitem__)
        now = due[tenant]
        if now > seconds:
            return {name: total / (seconds - WARM) for name, total in taken.items()}
        if shares.take(now, tenant, 0.001).within and now > WARM:
            taken[tenant] += 0.001
        due[tenant] = now + 1 / rates[tenant]


def test_an_only_tenant_is_never_behind() -> None:
    shares = Shares()
    assert all(shares.take(0.001 * n, "alone", 1.0).within for n in range(1000))
    assert not shares.behind(1.0, ["alone"])


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
    shares = known(Shares(), "other", "burst")
    for now in (5.0, 10.0, 15.0):
        shares.take(now, "other", 1e-9)
        shares.take(now, "burst", 1e-9)
    burst = [shares.take(15.0, "burst", 0.01).within for _ in range(1000)]
    assert sum(burst) == pytest.approx(100 * BURST / 2, abs=1)


def test_who_comes_has_room_for_a_few_requests_and_not_for_a_rush() -> None:
    shares = known(Shares(), "other")
    rush = [shares.take(0.0, "new", 0.1).within for _ in range(100)]
    assert 2 <= sum(rush) <= 10
    assert sum(rush) < REQUESTS / 2


def test_a_tenant_that_is_gone_leaves_its_share_to_the_others() -> None:
    shares = known(Shares(), "gone", "here")
    assert shares.share("here") == pytest.approx(0.5)
    shares.take(MEMORY + 1, "here", 0.001)
    assert shares.share("here") == 1.0


def test_work_that_ended_early_is_given_back() -> None:
    shares = known(Shares(), "other", "a")
    assert shares.take(0.0, "a", 10.0).within
    assert shares.behind(0.0, ["a"]) == {"a"}
    shares.settle("a", 10.0, 0.001)
    assert not shares.behind(0.0, ["a"])
    shares.settle("unknown", 1.0, 1.0)


def test_a_debt_is_paid_off_while_others_are_there_and_forgotten_with_its_tenant() -> None:
    shares = known(Shares(), "other", "a")
    shares.take(0.0, "a", 1.0)
    assert shares.behind(0.0, ["a", "other", "unknown"]) == {"a"}
    shares.take(5.0, "other", 1e-9)
    assert shares.behind(5.0, ["a", "other"]) == set()
    while shares.take(5.0, "a", 1.0).within:
        pass
    assert shares.behind(5.0, ["a"]) == {"a"}
    assert shares.behind(5.1 + MEMORY, ["a"]) == set()


def test_asking_who_is_behind_changes_nothing() -> None:
    asked, unasked = known(Shares(), "a", "b"), known(Shares(), "a", "b")
    for number in range(2000):
        now = 0.007 * number
        asked.behind(now + 0.003, ["a", "b", "c"])
        tenant = "abc"[number % 7 % 3]
        assert asked.take(now, tenant, 0.01) == unasked.take(now, tenant, 0.01)
        assert asked.share(tenant) == unasked.share(tenant)


def test_a_clock_that_steps_back_deals_nothing_out_twice() -> None:
    shares = Shares()
    for _ in range(100):
        shares.take(10.0, "a", 0.1)
        shares.take(0.0, "b", 0.1)
    assert shares.behind(10.0, ["a"]) == {"a"}


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_weights_are_above_0(weight: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Shares({"a": weight})
    with pytest.raises(ValueError, match="above 0"):
        Shares().set_weight("a", weight)


def test_a_name_for_each_request_is_one_share_for_all() -> None:
    shares, behind = known(Shares(), "calm"), 0
    for number in range(3 * NEWCOMERS):
        assert shares.take(0.01 * number, "calm", 0.002).within
        behind += not shares.take(0.01 * number, f"flood-{number}", 0.02).within
    assert shares.share("calm") >= 1 / 3, "beside the rest, and one that is new"
    assert behind > 2 * NEWCOMERS


def test_names_that_stay_have_so_many_shares_and_a_weight_is_worth_more() -> None:
    shares, names = Shares({"calm": 1.0}), [f"flood-{n}" for n in range(5 * MOST_UNSET)]
    known(known(shares, "calm"), *names)
    assert shares.share("calm") == pytest.approx(1 / (MOST_UNSET + 2))
    assert shares.bucket_of(names[-1]) == shares.bucket_of(names[-2])
    shares.set_weight("calm", 12.0)
    assert shares.share("calm") > 0.5
    shares.set_weight(names[-1], 2.0)
    assert shares.bucket_of(names[-1]) == names[-1]
    shares.set_weight(names[-1], None)
    assert shares.weight(names[-1]) == 1.0


def test_an_only_tenant_has_the_priorities_that_it_asks() -> None:
    shares = Shares()
    assert [shares.priority("alone", asked) for asked in (None, 1, 9)] == [5, 1, 9]
    known(shares, "alone")
    assert shares.priority("alone", 1) == 1


@pytest.mark.parametrize("given", [None, 2, 7])
def test_beside_others_no_request_is_more_urgent_than_its_tenant_may_be(given: int | None) -> None:
    shares = known(Shares(), "a", "b")
    shares.set_priority("a", given)
    limit = given or 5
    assert shares.priority("a", None) == limit
    assert [shares.priority("a", asked) for asked in range(1, 10)] == [
        max(limit, asked) for asked in range(1, 10)
    ]


def test_a_tenant_with_a_priority_keeps_to_it_alone() -> None:
    shares = Shares(priorities={"a": 3})
    assert shares.priority("a", 1) == 3
    shares.set_priority("a", None)
    assert shares.priority("a", 1) == 1


def test_what_is_charged_counts_as_requests_do() -> None:
    shares = Shares()
    shares.enter(0.0, "camera")
    shares.take(0.0, "camera", 0.001)
    shares.take(0.0, "flood", 0.001)
    shares.take(0.01, "flood", 0.001)
    assert shares.behind(0.01, ["camera", "flood"]) == set()
    shares.charge(0.02, "flood", 0.5)
    assert shares.behind(0.02, ["camera", "flood"]) == {"flood"}
    assert shares.behind(5.0, ["camera", "flood"]) == set(), "nobody pays for long"
