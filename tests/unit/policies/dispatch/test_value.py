from __future__ import annotations

import random
from math import inf

import pytest

from delen.core.dispatch import Key, Ran
from policies.dispatch.value import Value


def test_alone_a_task_runs_to_the_end_of_its_plan(world):
    task = world.wait(1, confidence=0.999, deadline=1.0)
    turns = world.drain(Value())
    assert [list(turn.run) for turn in turns] == [[task], [task]]
    assert not any(turn.answer for turn in turns)


def test_alone_it_runs_on_even_where_later_exits_seem_worse(world, view, monkeypatch):
    monkeypatch.setattr(view, "accuracy_after", lambda exit, confidence, target: 0.9 - target / 5)
    task = world.wait(1, confidence=0.99, deadline=1.0)
    assert list(world.ask(Value()).run) == [task]


def test_the_earliest_deadline_goes_first(world):
    """By worth the new one's first answer would go before the older one's better one."""
    older = world.wait(1, deadline=1.0, confidence=0.4)
    world.wait(0, deadline=2.0)
    assert list(world.ask(Value()).run) == [older]


def test_priority_does_not_change_the_order_of_deadlines(world):
    first = world.wait(0, deadline=1.0, priority=9)
    world.wait(1, deadline=2.0, priority=1, confidence=0.4)
    assert list(world.ask(Value()).run) == [first]


def test_without_a_deadline_a_task_is_due_when_its_patience_has_passed(world):
    waited = world.wait(1, confidence=0.1, patience=1.0)
    world.wait(0, deadline=2.0)
    assert list(world.ask(Value()).run) == [waited]
    world.wait(2, confidence=0.1, deadline=0.9)
    assert waited not in world.ask(Value()).run


def test_without_a_deadline_a_higher_priority_goes_first(world):
    world.wait(1, confidence=0.1, patience=1.0, priority=9)
    urgent = world.wait(0, patience=1.0, priority=1)
    assert list(world.ask(Value()).run) == [urgent]


def test_where_time_is_short_the_least_valuable_is_put_off(world):
    """Both take 10 ms, and the new one has 15: the better answer waits, though it is due first."""
    better = world.wait(1, deadline=0.014, confidence=0.4)
    new = world.wait(0, deadline=0.015)
    turn = world.ask(Value())
    assert list(turn.run) == [new] and not turn.answer
    world.leave(new)
    assert list(world.ask(Value()).run) == [better]


def test_the_answer_that_is_mended_least_a_second_is_put_off(world):
    world.wait(1, deadline=0.014, confidence=0.6)
    unsure = world.wait(2, deadline=0.015, confidence=0.3)
    assert list(world.ask(Value()).run) == [unsure]


def test_a_lower_priority_is_put_off_before_a_lesser_worth(world):
    world.wait(0, deadline=0.014, priority=6)
    better = world.wait(1, deadline=0.015, confidence=0.1)
    assert list(world.ask(Value()).run) == [better]


def test_one_behind_its_share_is_put_off_before_a_lower_priority(world):
    world.wait(0, deadline=0.014, behind=True)
    polite = world.wait(1, deadline=0.015, confidence=0.4, priority=9)
    assert list(world.ask(Value()).run) == [polite]


def test_what_is_put_off_for_long_is_so_no_more(world):
    """Its patience has passed: now the other one is put off, which has a deadline."""
    floor = world.wait(1, confidence=0.1, patience=1.0, floor=True)
    tight = world.wait(0, deadline=1.011)
    assert list(world.ask(Value(), now=1.0005).run) == [floor]
    floor.patience = 2.0
    world.leave(tight)
    world.wait(0, deadline=1.011)
    assert floor not in world.ask(Value(), now=1.0005).run


def test_something_runs_where_nothing_can_be_kept_as_planned(world):
    """The plan that keeps its floor takes 30 ms, and there are 15: the next exit may be sure."""
    floor = world.wait(0, deadline=0.015, floor=True)
    assert list(world.ask(Value()).run) == [floor]


def test_one_behind_waits_for_all_that_are_not(world):
    behind = world.wait(0, deadline=0.03, behind=True)
    polite = world.wait(1, deadline=9.0, confidence=0.1)
    assert list(world.ask(Value()).run) == [polite]
    world.leave(polite)
    assert list(world.ask(Value()).run) == [behind]


def test_mates_join_while_no_deadline_is_at_risk(world):
    tasks = [world.wait(0, deadline=0.021) for _ in range(3)]
    assert list(world.ask(Value()).run) == tasks
    for task in tasks:
        task.deadline = 0.019
    assert list(world.ask(Value()).run) == tasks[:2]


def test_a_batch_is_as_large_as_the_network_accepts_if_that_is_no_slower(world, make_world):
    tasks = [world.wait(0) for _ in range(9)]
    assert list(world.ask(Value()).run) == tasks[:8]
    slow = make_world(place=1.1)
    tasks = [slow.wait(0) for _ in range(9)]
    assert list(slow.ask(Value()).run) == tasks[:1]


def test_a_batch_ends_while_other_groups_can_wait(world):
    lead, *mates = [world.wait(0, deadline=deadline) for deadline in (0.03, 9.0, 9.0, 9.0)]
    world.wait(1, deadline=0.032, confidence=0.1)
    assert list(world.ask(Value()).run) == [lead, *mates[:2]]  # 20 ms, and 10 for the other


def test_one_that_may_be_late_is_no_mate(world):
    world.models["m"].late_by = 0.001
    lead = world.wait(0, deadline=0.0105)
    mates = [world.wait(0, deadline=0.5), world.wait(0, deadline=0.0106)]
    assert list(world.ask(Value()).run) == [lead]
    world.leave(lead)
    world.leave(mates[1])
    kept = world.wait(0, deadline=0.5)
    assert list(world.ask(Value()).run) == [mates[0], kept]


def test_those_behind_join_only_while_the_whole_plans_of_the_others_can_wait(world):
    lead = world.wait(0, deadline=0.036)
    mates = [world.wait(0, deadline=9.0, behind=True) for _ in range(3)]
    assert list(world.ask(Value()).run) == [lead, mates[0]]  # 5 ms more
    lead.deadline = 0.5
    assert list(world.ask(Value()).run) == [lead, *mates]
    for _ in range(5):
        world.wait(0, deadline=0.5)
    assert not any(task.behind for task in world.ask(Value()).run)


def test_a_batch_behind_its_share_takes_no_longer_than_the_whole_network_takes_one(world):
    """Who is within its share may come meanwhile: 5 positions take the 30 ms of the network."""
    tasks = [world.wait(0, behind=True) for _ in range(9)]
    assert list(world.ask(Value()).run) == tasks[:5]


def test_a_floor_is_mandatory_to_the_end_of_its_plan(world):
    floor = world.wait(1, floor=True, deadline=0.023, confidence=0.99)
    mates = [world.wait(1, deadline=1.0, confidence=0.1) for _ in range(3)]
    turn = world.ask(Value())
    assert list(turn.run) == [floor] and not turn.answer
    floor.deadline = 0.031
    assert list(world.ask(Value()).run) == [floor, mates[0]]


def test_what_cannot_reach_its_next_exit_in_time_ends_now(world):
    lost = world.wait(0, deadline=0.009)
    has_one = world.wait(1, deadline=0.009)
    kept = world.wait(0, deadline=0.5)
    turn = world.ask(Value())
    assert list(turn.refuse) == [lost]
    assert list(turn.answer) == [has_one]
    assert list(turn.run) == [kept]


def test_one_that_may_be_late_tries(world):
    world.models["m"].late_by = 0.001
    hopeful = world.wait(0, deadline=0.0105)
    world.wait(1, deadline=1.0, confidence=0.1)
    assert list(world.ask(Value()).run) == [hopeful]


def test_nothing_runs_where_nothing_can_be_kept(world):
    task = world.wait(0, deadline=0.009)
    turn = world.ask(Value())
    assert (list(turn.run), list(turn.refuse)) == ([], [task])


@pytest.mark.parametrize(
    ("joules", "runs"), [(inf, True), (0.021, True), (0.019, False), (0.0, False)]
)
def test_an_energy_cap_ends_a_task_that_has_an_answer(world, joules, runs):
    task = world.wait(1, joules_left=joules)
    turn = world.ask(Value())
    assert (list(turn.run), list(turn.answer)) == (([task], []) if runs else ([], [task]))
    assert Value().runs_alone(0.0, task, world.models) is runs


def test_unknown_energy_ends_a_task_with_a_cap(make_world):
    world = make_world(watts=None)
    capped = world.wait(1, joules_left=1.0)
    assert list(world.ask(Value()).answer) == [capped]


@pytest.mark.parametrize(("deadline", "runs"), [(inf, True), (0.011, True), (0.009, False)])
def test_a_task_that_is_alone_runs_alone_as_it_would_be_chosen(world, deadline, runs):
    task = world.wait(0, deadline=deadline)
    assert bool(world.ask(Value()).run) is runs
    assert Value().runs_alone(0.0, task, world.models) is runs


def _crowd(world, count, deadline=0.3, **given):
    return [world.wait(0, deadline=deadline, **given) for _ in range(count)]


@pytest.mark.parametrize("count", [3, 60])
def test_nothing_is_left_out_while_all_whole_plans_can_end_well_before_deadlines(world, count):
    sure = world.wait(1, confidence=0.999, deadline=0.05)
    _crowd(world, count, deadline=60.0)
    _crowd(world, count, deadline=inf)
    turn = world.ask(Value())
    assert list(turn.run) == [sure] and not turn.answer
    world.leave(sure)
    assert len(world.ask(Value()).run) == min(2 * count, 8)


def test_the_more_waits_the_surer_an_answer_need_not_be(world):
    """0.9 * (1 - confidence) is gained; 14 tasks with 300 ms press with 10 / 300 each."""
    unsure, sure = world.wait(1, confidence=0.8), world.wait(1, confidence=0.9)
    _crowd(world, 13)
    assert not world.ask(Value()).answer
    _crowd(world, 1)
    assert list(world.ask(Value()).answer) == [sure]
    _crowd(world, 14)
    assert set(world.ask(Value()).answer) == {unsure, sure}


def test_mates_end_that_are_not_worth_their_time(world):
    tasks = [world.wait(1, confidence=0.1, deadline=0.05 + 0.001 * n) for n in range(6)]
    sure = world.wait(1, confidence=0.99, deadline=0.054)
    _crowd(world, 20, deadline=0.1)
    turn = world.ask(Value())
    assert set(turn.run) <= set(tasks) and len(turn.run) > 1
    assert list(turn.answer) == [sure]


def test_who_has_time_presses_less_down_to_ten_networks_ahead(make_world):
    world = make_world(seconds=(0.01, 0.01, 0.1))
    sure = world.wait(1, confidence=0.95)
    _crowd(world, 30, deadline=3.0)
    assert not world.ask(Value()).answer
    assert list(world.ask(Value(), now=2.8).answer) == [sure]


def test_tasks_without_a_deadline_press_on_those_with_one_and_not_on_each_other(world):
    sure = world.wait(1, confidence=0.95, deadline=0.024)
    timeless = world.wait(1, confidence=0.9)
    _crowd(world, 9, deadline=inf)
    assert list(world.ask(Value()).answer) == [sure]
    world.leave(sure)
    assert not world.ask(Value()).answer
    _crowd(world, 15)
    assert list(world.ask(Value()).answer) == [timeless]


def test_a_floor_and_a_first_answer_have_no_price(world):
    floor = world.wait(1, confidence=0.999, floor=True)
    _crowd(world, 400)
    turn = world.ask(Value())
    assert floor not in turn.answer and not turn.refuse


def test_those_behind_do_not_press_on_those_within_their_shares(world):
    polite = world.wait(1, confidence=0.99, deadline=0.3)
    behind = world.wait(1, confidence=0.99, deadline=0.3, behind=True)
    _crowd(world, 400, behind=True)
    turn = world.ask(Value())
    assert list(turn.run) == [polite] and list(turn.answer) == [behind]


def test_a_slowdown_is_taken_in_when_a_batch_has_run(world, view):
    policy = Value()
    task = world.wait(0, deadline=0.015)
    assert list(world.ask(policy).run) == [task]
    view.slowdown = 2.0
    policy.ran(0.0, Ran(Key("m", 0), 1, 0.02, 0.01))
    assert list(world.ask(policy).refuse) == [task]


def test_a_slowdown_changes_no_worth(world, view):
    policy = Value()
    better, new = world.wait(1, deadline=0.024, confidence=0.4), world.wait(0, deadline=0.025)
    assert list(world.ask(policy).run) == [better]
    view.slowdown = 2.0
    assert list(world.ask(policy).run) == [new]


def test_another_profile_is_read_anew(world, view):
    policy = Value()
    tasks = [world.wait(0) for _ in range(4)]
    assert list(world.ask(policy).run) == tasks
    view.seconds, view.place = (0.03, 0.001, 0.02), 1.1
    assert list(world.ask(policy).run) == tasks[:1]


def test_a_model_that_was_loaded_again_has_new_costs(world, view):
    policy = Value()
    task = world.wait(0, deadline=0.015)
    assert list(world.ask(policy).run) == [task]
    world.leave(task)
    policy.ended(0.0, task)
    world.models = {"m": type(view)(seconds=(0.02, 0.01, 0.01))}
    again = world.wait(0, deadline=0.015)
    assert list(world.ask(policy).refuse) == [again]


def test_a_decision_looks_at_few_of_many(world, monkeypatch):
    draw = random.Random(1)
    for _ in range(3000):
        world.wait(draw.choice((0, 1, 2)), deadline=draw.uniform(1.0, 2.0), confidence=0.5)
    asked = []
    first = type(world.groups["m", 0]).first
    monkeypatch.setattr(
        type(world.groups["m", 0]),
        "first",
        lambda group, count: asked.append(count) or first(group, count),
    )
    world.ask(Value())
    assert len(asked) <= 4 and max(asked) <= 8 + 3 * 4


def test_nothing_is_kept_of_a_model_that_was_unloaded(world):
    policy = Value()
    for model in ("m", "n"):
        world.wait(0, model=model, deadline=0.001)
        world.ask(policy)
        world.groups.clear()
    del world.models["n"]
    world.wait(0)
    world.ask(policy)
    heads = policy._heads
    assert set(heads._costs) == {group.key.model for group in heads._heads} == {"m"}
