from __future__ import annotations

import pytest

from delen.core.dispatch import Key, Ran
from policies.dispatch.published.drex import Drex
from policies.dispatch.published.dysta import Dysta
from policies.dispatch.published.etf import EnergyTimeFair
from policies.dispatch.published.fluid import FluidBatching


def test_dysta_runs_the_shortest_rest_alone(world):
    world.wait(0)
    nearly_done = world.wait(2)
    world.wait(1)
    assert list(world.ask(Dysta()).run) == [nearly_done]


def test_dysta_weighs_slack_against_the_rest(world):
    world.wait(1, deadline=60.0)
    urgent = world.wait(0, deadline=0.05)
    assert list(world.ask(Dysta()).run) == [urgent]


def test_dysta_goes_on_with_what_has_not_idled(world):
    world.wait(1, arrived=-0.01, waiting_since=-0.01)
    running = world.wait(1, arrived=-9.0, waiting_since=0.0)
    assert list(world.ask(Dysta()).run) == [running]


def test_dysta_counts_from_the_end_of_the_last_segment_however_long_that_took(world):
    """One has waited since it came and the other has run, slowly, until a moment ago."""
    waiting = world.wait(1, arrived=0.0, waiting_since=0.0)
    ran = world.wait(1, arrived=0.0, waiting_since=5.0)
    assert list(world.ask(Dysta(), now=5.0).run) == [ran]
    world.leave(ran)
    assert list(world.ask(Dysta(), now=5.0).run) == [waiting]


def test_dysta_learns_how_long_segments_really_take(world):
    policy = Dysta()
    world.wait(1, model="m")
    other = world.wait(1, model="n", id=99)
    assert world.ask(policy).run[0].model == "m"
    for _ in range(9):
        policy.ran(0.0, Ran(Key("m", 0), 1, 0.03, 0.01))
    assert list(world.ask(policy).run) == [other]


def test_fluid_lets_new_ones_catch_up_while_the_suspended_can_wait(world):
    world.wait(1, deadline=0.0401)
    world.wait(0, deadline=1.0)
    assert world.ask(FluidBatching()).run[0].segment == 0  # 10 ms, then 30 ms for both
    assert world.ask(FluidBatching(), now=0.001).run[0].segment == 1


def test_fluid_does_not_suspend_a_full_batch(world):
    for _ in range(8):
        world.wait(1)
    world.wait(0)
    assert world.ask(FluidBatching()).run[0].segment == 1


def test_fluid_serves_the_model_in_a_hurry(world):
    world.wait(0, model="m", deadline=0.9)
    world.wait(0, model="n", deadline=0.8)
    assert world.ask(FluidBatching()).run[0].model == "n"


def test_drex_holds_survivors_while_a_rebatch_saves_more_than_it_costs(make_world):
    for place, held in ((0.5, True), (0.99, False)):
        world = make_world(place=place)
        world.wait(1)
        for _ in range(2):
            world.wait(0)
        assert (world.ask(Drex()).run[0].segment == 0) is held


def test_drex_holds_no_one_whose_deadline_is_at_risk(world):
    world.wait(1, deadline=0.04)
    for _ in range(2):
        world.wait(0)
    assert world.ask(Drex()).run[0].segment == 1


def test_drex_expects_none_where_all_have_left_at_the_first_exit(world):
    policy = Drex()
    world.wait(1)
    newcomer = world.wait(0)
    assert world.ask(policy).run[0] is newcomer
    gone = world.wait(1)
    world.leave(gone)
    for _ in range(200):
        policy.ended(0.0, gone)
    assert world.ask(policy).run[0].segment == 1


def _turns(world, policy, rounds):
    """Which tenants lead while two always have one task waiting."""
    lead = []
    for tenant in ("a", "b"):
        world.wait(tenant=tenant, model=tenant_model(tenant), weight=2.0 if tenant == "b" else 1.0)
    for _ in range(rounds):
        task = world.ask(policy).run[0]
        lead.append(task.tenant)
        world.leave(task)
        world.wait(tenant=task.tenant, model=task.model, weight=task.weight)
    return lead


def tenant_model(tenant):
    return {"a": "m", "b": "n"}[tenant]


def test_etf_shares_by_weight(world):
    lead = _turns(world, EnergyTimeFair(), 30)
    assert lead.count("b") == pytest.approx(20, abs=1)


@pytest.mark.parametrize(("time_share", "of_a"), [(1.0, 10), (0.0, 20)])
def test_etf_shares_time_or_energy(make_world, time_share, of_a):
    world = make_world()
    world.models = {"m": world.models["m"], "n": type(world.models["m"])(watts=8.0)}
    lead = _turns(world, EnergyTimeFair(time_share), 30)
    assert lead.count("a") == pytest.approx(of_a, abs=2)  # b weighs 2 and takes 4 times the watts


def test_etf_gives_no_credit_for_absence(world):
    policy = EnergyTimeFair()
    for _ in range(20):
        task = world.wait(tenant="a")
        world.ask(policy)
        world.leave(task)
    lead = []
    for tenant, model in (("a", "m"), ("c", "n")):
        world.wait(tenant=tenant, model=model)
    for _ in range(6):
        task = world.ask(policy).run[0]
        lead.append(task.tenant)
        world.leave(task)
        world.wait(tenant=task.tenant, model=task.model)
    assert lead.count("c") <= 4


def test_etf_shares_time_where_energy_is_unknown(make_world):
    world = make_world(watts=None)
    world.models = {"m": world.models["m"], "n": world.models["m"]}
    assert _turns(world, EnergyTimeFair(0.0), 30).count("b") == pytest.approx(20, abs=1)


@pytest.mark.parametrize("time_share", [-0.1, 1.1])
def test_etf_refuses_a_share_that_is_none(time_share):
    with pytest.raises(ValueError, match="from 0 to 1"):
        EnergyTimeFair(time_share)
