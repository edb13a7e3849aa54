from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.energy.accounts import Accounts
from delen.profile.cost_model import CostModel
from delen.profile.profile import HostCosts, Profile, Quantiles

MakeCosts = Callable[..., CostModel]
MakeProfile = Callable[..., Profile]


def test_latency_sums_the_segments_at_the_level(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01, 0.02, 0.03, spread=0.1)  # p99 is 1.3 times the median
    assert costs.latency(0, 2, 1) == pytest.approx(0.06 * 1.3)
    assert costs.latency(1, 1, 1) == pytest.approx(0.02 * 1.3)
    assert costs.typical(0, 1, 1) == pytest.approx(0.03)
    assert make_costs(0.01, spread=0.1, level=0.9).latency(0, 0, 1) == pytest.approx(0.011)


def test_answering_is_at_the_level(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01, answer=0.002)
    assert costs.answering() == 0.002
    assert costs.latency_upper(0, 0, 1) == pytest.approx(0.012)


HOST = HostCosts(request=0.002, batch=0.003, task=0.001, answer=0.004)


def test_what_the_host_takes_beside_each_segment_is_expected(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01, 0.02, spread=0.1, growth=0.0, host=HOST)
    assert costs.typical(0, 1, 1) == pytest.approx(0.03 + 2 * 0.004)
    assert costs.latency(0, 1, 1) == pytest.approx(0.03 * 1.3 + 2 * 0.004)
    assert costs.usual(1, 1, 8) == pytest.approx(0.02 * 1.3 + 0.011)
    assert costs.admitting() == pytest.approx(0.002)
    assert make_costs(0.01).admitting() == 0


def test_segments_take_what_they_take_while_requests_come_and_go(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01, 0.02, host=HostCosts(stretch=Quantiles(1.1, 1.2, 1.3, 1.5)))
    assert costs.typical(0, 1, 1) == pytest.approx(0.03 * 1.1)
    assert costs.latency(0, 1, 1) == pytest.approx(0.03 * 1.5)
    costs.learn(0, 1, 0.011)
    assert costs.slowdown.mean == pytest.approx(1)  # as known


def test_what_is_learnt_is_of_segments_and_slows_the_host_as_well(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01, host=HOST)
    for _ in range(150):
        costs.learn(0, 1, 0.01)
    assert costs.slowdown.mean == pytest.approx(1)
    for _ in range(150):
        costs.learn(0, 1, 0.02)
    assert costs.slowdown.mean == pytest.approx(2, rel=0.02)
    assert costs.typical(0, 0, 1) == pytest.approx(2 * (0.01 + 0.004), rel=0.02)
    assert costs.admitting() == pytest.approx(0.004, rel=0.02)


def test_the_host_takes_none_of_the_joules(make_costs: MakeCosts) -> None:
    assert make_costs(0.01, watts=2.0, host=HOST).energies() == (pytest.approx(0.02),)


def test_another_profile_has_another_host(make_costs: MakeCosts, make_profile: MakeProfile) -> None:
    costs = make_costs(0.01, host=HOST)
    costs.use(make_profile(0.01), costs.energy)
    assert costs.typical(0, 0, 1) == pytest.approx(0.01)


def test_a_slowdown_scales_what_is_predicted(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01, 0.02)
    for _ in range(150):
        costs.learn(0, 1, 0.02)
    assert costs.typical(0, 1, 1) == pytest.approx(0.06, rel=0.02)
    assert costs.latency(0, 1, 1) == pytest.approx(0.06, rel=0.1)


def test_what_is_learnt_on_a_batch_is_compared_with_that_batch(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01, growth=0.5)
    for _ in range(50):
        costs.learn(0, 3, 0.02)  # just what the profile says of three
    assert costs.slowdown.mean == pytest.approx(1)


def test_joules_that_were_more_than_was_said_are_expected_again(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01, 0.02, watts=2.0)
    assert costs.energy_at_most(0, 1, 1) == pytest.approx(0.06)
    for _ in range(150):
        costs.learn(0, 1, 0.01, joules=0.03)
    assert costs.energy_at_most(0, 1, 1) == pytest.approx(0.09, rel=0.05)
    assert costs.planned_energy(0, 1, 1) == pytest.approx(0.06), "plans are by the account"
    assert costs.typical(0, 1, 1) == pytest.approx(0.03), "nor is it any slower"
    costs.relax(0.0)
    costs.relax(100.0)
    assert costs.energy_at_most(0, 1, 1) == pytest.approx(0.06)


def test_the_unsteadier_joules_are_the_more_may_be_taken(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01, watts=2.0)
    for joules in [0.016, 0.024] * 50:
        costs.learn(0, 1, 0.01, joules)
    most = costs.energy_at_most(0, 0, 1)
    assert most is not None and most > 0.024


def test_who_leaves_a_batch_may_go_on_alone(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01, growth=0.5, watts=2.0)
    assert costs.planned_energy(0, 0, 8) == pytest.approx(0.02 * 4.5 / 8)
    assert costs.energy_at_most(0, 0, 8) == pytest.approx(0.02)


def test_unknown_joules_stay_unknown(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01)
    costs.learn(0, 1, 0.01, None)
    assert costs.energy_at_most(0, 0, 1) is None


def test_unsteady_days_are_predicted_beyond_the_profile(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01)
    for measured in [0.008, 0.012] * 50:
        costs.learn(0, 1, measured)
    assert costs.latency(0, 0, 1) > 1.2 * costs.typical(0, 0, 1)


times = st.lists(st.floats(1e-4, 1), min_size=1, max_size=5)


@given(times, st.floats(0, 1), st.floats(0, 1), st.lists(st.floats(1e-5, 5), max_size=20))
def test_deeper_and_larger_is_never_faster(
    make_costs: MakeCosts, medians: list[float], spread: float, growth: float, seen: list[float]
) -> None:
    costs = make_costs(*medians, spread=spread, growth=growth, answer=0.001)
    for measured in seen:
        costs.learn(0, 1, measured)
    last = len(medians) - 1
    for batch in range(1, 9):
        by_depth = [costs.latency(0, exit, batch) for exit in range(last + 1)]
        assert by_depth == sorted(by_depth)
        assert costs.typical(0, last, batch) <= by_depth[-1] * (1 + 1e-9)
        if batch > 1:
            assert costs.latency(0, last, batch) >= costs.latency(0, last, batch - 1) * (1 - 1e-9)


def test_energy_is_one_samples_share_of_its_batch(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01, 0.02, watts=4.0, growth=0.5)
    assert costs.energies() == pytest.approx((0.04, 0.12))
    assert costs.planned_energy(0, 1, 2) == pytest.approx(0.12 * 1.5 / 2)
    assert costs.planned_energy(1, 1, 1) == pytest.approx(0.08)


def test_energy_is_unknown_without_a_source(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01, 0.02)
    assert costs.energies() == (None, None)
    assert costs.planned_energy(0, 1, 4) is None


def test_a_slowdown_fades_while_nothing_is_seen(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01)
    for _ in range(150):
        costs.learn(0, 1, 0.04)
    costs.relax(100.0)
    before = costs.slowdown.mean
    costs.relax(102.0)
    assert costs.slowdown.mean - 1 == pytest.approx((before - 1) / 2)
    costs.relax(200.0)
    assert costs.latency(0, 0, 1) == pytest.approx(0.01)


def test_usual_leaves_out_the_spread_of_the_slowdown(make_costs: MakeCosts) -> None:
    costs = make_costs(0.01)
    for measured in [0.005, 0.015] * 50:
        costs.learn(0, 1, measured)
    assert costs.usual(0, 0, 1) == pytest.approx(0.01 * costs.slowdown.mean)
    assert costs.latency(0, 0, 1) > 1.5 * costs.usual(0, 0, 1)


def test_energy_follows_the_factors_that_are_published(make_profile: MakeProfile) -> None:
    accounts = Accounts("ina3221", 4.0)
    profile = make_profile(0.01, 0.02)
    costs = CostModel(profile, accounts.open(profile), 0.99)
    assert costs.energies() == pytest.approx((0.04, 0.12))
    accounts.factors.publish({"tiny": (0.5, 2.0)})
    assert costs.energies() == pytest.approx((0.02, 0.18))
    assert costs.planned_energy(1, 1, 2) == pytest.approx(2 * 0.08 * 1.5 / 2)


def test_another_profile_takes_over_at_once(make_profile: MakeProfile) -> None:
    accounts = Accounts("ina3221", 4.0)
    slow, fast = make_profile(0.02, 0.02), make_profile(0.01, 0.01, energy=(0.3, 0.3))
    costs = CostModel(slow, accounts.open(slow), 0.99)
    for _ in range(50):
        costs.learn(0, 1, 0.04)
    assert costs.latency(0, 1, 1) > 0.06
    assert costs.stale is None
    costs.use(fast, accounts.open(fast))
    assert costs.latency(0, 1, 1) == pytest.approx(0.02)
    assert costs.energies() == pytest.approx((0.3, 0.6))
    costs.use(fast, accounts.open(fast), "measured in another mode")
    assert costs.stale == "measured in another mode"
