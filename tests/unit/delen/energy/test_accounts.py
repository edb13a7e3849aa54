from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from delen.energy.accounts import Accounts, UnknownAccount
from delen.profile.energy_account import Spent
from delen.profile.profile import Profile, Quantiles, SegmentCost

MakeProfile = Callable[..., Profile]
COST = SegmentCost(Quantiles(0.01, 0.01, 0.01, 0.01), processor=0.03)


def test_the_model_prices_processor_time_and_says_that_it_estimates(
    make_profile: MakeProfile,
) -> None:
    account = Accounts("model", 4.0).open(make_profile(0.01))
    assert account.predict(COST) == pytest.approx(0.12)
    assert account.predict(COST, Spent(1.0, 0.05)) == pytest.approx(0.2)
    assert account.predict(replace(COST, energy=99.0)) == pytest.approx(0.12)
    assert (account.kind, account.source, account.scope) == ("estimated", "model", "processor")


def test_segments_on_a_gpu_are_priced_by_the_time_that_they_take(
    make_profile: MakeProfile,
) -> None:
    profile = make_profile(0.01)
    on_gpu = replace(profile, device=replace(profile.device, provider="cuda"))
    account = Accounts("model", 4.0).open(on_gpu)
    waiting = replace(COST, processor=0.0001)
    assert account.predict(waiting) == pytest.approx(0.04), "the processor only waits"
    assert account.predict(waiting, Spent(seconds=0.02, processor=0.0002)) == pytest.approx(0.08)
    assert (account.kind, account.source, account.scope) == ("estimated", "model", "gpu")


def test_a_profile_that_a_sensor_took_is_believed(make_profile: MakeProfile) -> None:
    profile = make_profile(0.01, 0.01, energy=(0.05, 0.07))
    account = Accounts("ina3221", 4.0).open(profile)
    assert account.predict(profile.cost(1, 1), Spent(9.0, 9.0)) == pytest.approx(0.07)
    assert account.predict(profile.cost(1, 4)) == pytest.approx(0.28)
    assert (account.kind, account.source) == ("estimated", "profile")
    assert account.scope == "module_input"


def test_without_a_source_every_figure_is_unknown(make_profile: MakeProfile) -> None:
    account = Accounts(None, 4.0).open(make_profile(0.01, energy=(0.05,)))
    assert isinstance(account, UnknownAccount)
    assert (account.kind, account.source, account.scope) == ("unknown", None, None)
    assert account.predict(COST) is account.predict(COST, Spent(1.0, 1.0)) is None
    assert account.factor(0) == 1


def test_published_factors_reach_every_open_account(make_profile: MakeProfile) -> None:
    accounts = Accounts("ina3221", 4.0)
    tiny, other = accounts.open(make_profile(0.01)), accounts.open(make_profile(0.01, model="b"))
    before = tiny.revision
    assert tiny.factor(1) == 1
    accounts.factors.publish({"tiny": (1.5, 0.5)})
    assert tiny.revision > before
    assert (tiny.factor(0), tiny.factor(1), tiny.factor(2)) == (1.5, 0.5, 1.0)
    assert other.factor(0) == 1


def test_a_profile_is_trusted_by_the_sensor_that_took_it_alone(make_profile: MakeProfile) -> None:
    profile = make_profile(0.01, energy=(0.05,))  # its sensor is named "test"
    assert Accounts("test", 4.0).spread(profile) < 0.1
    assert Accounts("nvml", 4.0).spread(profile) == 1
    assert Accounts("test", 4.0).spread(make_profile(0.01)) == 1
