from __future__ import annotations

import pytest

from policies.dispatch.marginal_value import MarginalValue


def test_without_an_answer_it_is_the_steepest_way_to_one(make_world):
    world = make_world()
    assert MarginalValue(world.figures["m"]).of(world.wait()) == pytest.approx(
        3 * 0.6
    )  # of 0.75 / 2
    slow = make_world(seconds=(0.03, 0.001, 0.02))
    assert MarginalValue(slow.figures["m"]).of(slow.wait()) == pytest.approx(0.75 / 0.031 * 0.051)


@pytest.mark.parametrize("confidence", [0.0, 0.5, 0.9, 1.0])
def test_with_one_it_is_what_later_exits_mend(world, figures, confidence):
    task = world.wait(1, confidence=confidence)
    assert MarginalValue(figures).of(task) == pytest.approx(3 * 0.3 * (1 - confidence))


def test_it_looks_no_further_than_the_plan(make_world):
    world = make_world(seconds=(0.01, 0.02, 0.001))
    worth = MarginalValue(world.figures["m"])
    deep, shallow = (world.wait(1, last=last) for last in (2, 1))
    assert worth.of(deep) == pytest.approx(0.25 / 0.021 * 0.031)
    assert worth.of(shallow) == pytest.approx(0.15 / 0.020 * 0.031)


def test_of_a_floor_it_is_the_whole_plan_over_what_is_left_of_it(world, figures):
    worth = MarginalValue(figures)
    assert worth.of(world.wait(0, floor=True)) == pytest.approx(0.8)
    assert worth.of(world.wait(2, floor=True)) == pytest.approx(3 * 0.8)


def test_a_slowdown_changes_times_and_not_worths(world, figures):
    worth = MarginalValue(figures)
    before = worth.of(world.wait(1))
    figures.slowdown = 2.0
    assert worth.full == pytest.approx(0.03)
    worth.renew()
    assert worth.full == pytest.approx(0.06)
    assert [step.seconds for step in worth.steps] == pytest.approx([0.02] * 3)
    assert [step.late for step in worth.steps] == pytest.approx([0.02] * 3)
    assert worth.of(world.wait(1)) == before
    assert worth.of(world.wait(1, confidence=0.25)) == pytest.approx(3 * 0.3 * 0.75)


def test_a_small_change_is_not_worth_taking_in(figures):
    worth = MarginalValue(figures)
    figures.slowdown = 1.009
    worth.renew()
    assert worth.full == pytest.approx(0.03)
    figures.slowdown = 1.02
    worth.renew()
    assert worth.full == pytest.approx(0.0306)


def test_the_largest_batch_takes_as_long_as_the_whole_network_takes_one(make_world):
    assert MarginalValue(make_world().figures["m"]).most(0) == 5
    assert MarginalValue(make_world(place=0.01).figures["m"]).most(0) == 8
    assert MarginalValue(make_world(seconds=(0.03, 0.001, 0.001)).figures["m"]).most(0) == 1


def test_a_place_in_a_batch_costs_its_share_of_a_task_alone(figures):
    worth = MarginalValue(figures)
    assert worth.place(0, 1) == 1.0
    assert worth.place(0, 4) == pytest.approx(0.5)


def test_another_profile_is_worked_out_anew(world, figures):
    worth = MarginalValue(figures)
    assert worth.most(0) == 5
    before = worth.of(world.wait(1))
    figures.seconds, figures.max_batch = (0.03, 0.001, 0.02), 2
    worth.renew()
    assert worth.full == pytest.approx(0.051)
    assert [step.seconds for step in worth.steps] == pytest.approx([0.03, 0.001, 0.02])
    assert worth.most(1) == 2
    assert worth.of(world.wait(1)) != before
