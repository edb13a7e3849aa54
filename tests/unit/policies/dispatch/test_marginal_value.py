from __future__ import annotations

import pytest

from policies.dispatch.marginal_value import MarginalValue


def test_without_an_answer_it_is_the_steepest_way_to_one(make_world):
    world = make_world()
    assert MarginalValue(world.models["m"]).of(world.wait()) == pytest.approx(
        3 * 0.6
    )  # of 0.75 / 2
    slow = make_world(seconds=(0.03, 0.001, 0.02))
    assert MarginalValue(slow.models["m"]).of(slow.wait()) == pytest.approx(0.75 / 0.031 * 0.051)


@pytest.mark.parametrize("confidence", [0.0, 0.5, 0.9, 1.0])
def test_with_one_it_is_what_later_exits_mend(world, view, confidence):
    task = world.wait(1, confidence=confidence)
    assert MarginalValue(view).of(task) == pytest.approx(3 * 0.3 * (1 - confidence))


def test_it_looks_no_further_than_the_plan(make_world):
    world = make_world(seconds=(0.01, 0.02, 0.001))
    values = MarginalValue(world.models["m"])
    deep, shallow = (world.wait(1, last=last) for last in (2, 1))
    assert values.of(deep) == pytest.approx(0.25 / 0.021 * 0.031)
    assert values.of(shallow) == pytest.approx(0.15 / 0.020 * 0.031)


def test_of_a_floor_it_is_the_whole_plan_over_what_is_left_of_it(world, view):
    values = MarginalValue(view)
    assert values.of(world.wait(0, floor=True)) == pytest.approx(0.8)
    assert values.of(world.wait(2, floor=True)) == pytest.approx(3 * 0.8)


def test_a_slowdown_changes_times_and_not_values(world, view):
    values = MarginalValue(view)
    before = values.of(world.wait(1))
    view.slowdown = 2.0
    assert values.full == pytest.approx(0.03)
    values.renew()
    assert values.full == pytest.approx(0.06)
    assert [step.seconds for step in values.steps] == pytest.approx([0.02] * 3)
    assert [step.latency_upper for step in values.steps] == pytest.approx([0.02] * 3)
    assert values.of(world.wait(1)) == before
    assert values.of(world.wait(1, confidence=0.25)) == pytest.approx(3 * 0.3 * 0.75)


def test_the_largest_batch_is_no_slower_than_one_by_one(make_world):
    assert MarginalValue(make_world().models["m"]).most(0) == 8
    assert MarginalValue(make_world(place=1.1).models["m"]).most(0) == 1


def test_a_batch_behind_its_share_takes_no_longer_than_the_whole_network_takes_one(make_world):
    assert MarginalValue(make_world().models["m"]).most(0, behind=True) == 5
    assert MarginalValue(make_world(place=0.01).models["m"]).most(0, behind=True) == 8
    slow = make_world(seconds=(0.03, 0.001, 0.001))
    assert MarginalValue(slow.models["m"]).most(0, behind=True) == 1


def test_a_position_in_a_batch_costs_its_share_of_a_task_alone(view):
    values = MarginalValue(view)
    assert values.position_cost(0, 1) == 1.0
    assert values.position_cost(0, 4) == pytest.approx(0.5)


def test_another_profile_is_worked_out_anew(world, view):
    values = MarginalValue(view)
    assert values.most(0) == 8
    before = values.of(world.wait(1))
    view.seconds, view.max_batch = (0.03, 0.001, 0.02), 2
    values.renew()
    assert values.full == pytest.approx(0.051)
    assert [step.seconds for step in values.steps] == pytest.approx([0.03, 0.001, 0.02])
    assert values.most(1) == 2
    assert values.of(world.wait(1)) != before
