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


def test_with_room_for_all_the_earliest_deadline_goes_first(world):
    """By worth the new one's first answer would go before the older one's better one."""
    older = world.wait(1, deadline=1.0, confidence=0.4)
    world.wait(0, deadline=2.0)
    assert list(world.ask(Value()).run) == [older]


def test_room_is_what_whole_plans_take_one_by_one(world):
    older = world.wait(1, deadline=0.02, confidence=0.4)
    new = world.wait(0, deadline=0.051)
    assert list(world.ask(Value()).run) == [older]
    new.deadline = 0.049
    assert list(world.ask(Value()).run) == [new]


def test_with_room_for_all_only_priority_goes_before_deadlines(world):
    behind = world.wait(1, deadline=1.0, behind=True)
    polite = world.wait(0, deadline=2.0)
    assert list(world.ask(Value()).run) == [behind]
    polite.priority = 4
    assert list(world.ask(Value()).run) == [polite]


def test_room_is_looked_for_only_where_few_wait(world):
    world.wait(1, deadline=100.0, confidence=0.4)
    new = [world.wait(0, deadline=200.0) for _ in range(8)]
    assert world.ask(Value()).run[0] is new[0]


def _hurry(world):
    """A task of another model and the last rank that leaves no room for all to run their plans."""
    world.wait(0, model="n", priority=9, behind=True, deadline=0.015)


def test_first_answers_go_before_better_ones(world):
    _hurry(world)
    world.wait(1, deadline=1.0, confidence=0.4)
    new = world.wait(0, deadline=2.0)
    assert list(world.ask(Value()).run) == [new]


def test_a_better_answer_goes_first_where_the_first_answers_can_wait_for_it(world):
    better = world.wait(1, deadline=0.015, confidence=0.1)
    new = world.wait(0, deadline=0.021)
    assert list(world.ask(Value()).run) == [better]
    new.deadline = 0.019
    assert list(world.ask(Value()).run) == [new]


def test_it_is_all_of_the_first_answers_that_must_be_able_to_wait(world):
    world.wait(1, deadline=0.015, confidence=0.1)
    new = [world.wait(0, deadline=0.034) for _ in range(3)]
    assert world.ask(Value()).run[0].segment == 1  # 10 ms, then 20 for the three
    new += [world.wait(0, deadline=0.034) for _ in range(2)]
    assert world.ask(Value()).run[0].segment == 0


def test_the_answer_that_is_mended_most_a_second_goes_first(world):
    _hurry(world)
    world.wait(1, confidence=0.6)
    unsure = world.wait(2, confidence=0.3)
    assert list(world.ask(Value()).run) == [unsure]


def test_mates_join_while_no_deadline_is_at_risk(world):
    tasks = [world.wait(0, deadline=0.021) for _ in range(5)]
    assert list(world.ask(Value()).run) == tasks[:3]


def test_a_batch_grows_while_it_is_faster_than_one_by_one(make_world):
    """Eight take 45 ms, longer than the 30 ms of the whole network, but 80 one by one."""
    world = make_world()
    tasks = [world.wait(0) for _ in range(9)]
    assert list(world.ask(Value()).run) == tasks[:8]
    for task in tasks:
        task.behind = True
    assert list(world.ask(Value()).run) == tasks[:5]
    slow = make_world(place=1.1)
    tasks = [slow.wait(0) for _ in range(9)]
    assert list(slow.ask(Value()).run) == tasks[:1]


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


def test_unknown_energy_ends_a_task_with_a_cap(make_world):
    world = make_world(watts=None)
    capped = world.wait(1, joules_left=1.0)
    assert list(world.ask(Value()).answer) == [capped]


def _crowd(world, count, deadline=0.3, **given):
    return [world.wait(0, deadline=deadline, **given) for _ in range(count)]


def test_a_priority_that_was_taken_back_counts_no_more(world):
    privileged = world.wait(0, priority=1)
    for _ in range(9):
        world.wait(1, confidence=0.4)
    policy = Value()
    assert list(world.ask(policy).run) == [privileged]
    group = world.groups[Key("m", 0)]
    group.remove(privileged)
    privileged.priority = 9
    group.add(privileged)
    assert privileged not in world.ask(policy).run


def test_the_more_waits_the_surer_an_answer_need_not_be(world):
    """0.9 * (1 - confidence) is gained; 20 tasks with 300 ms press with 10 / 300 each."""
    unsure, sure = world.wait(1, confidence=0.9), world.wait(1, confidence=0.99)
    assert not world.ask(Value()).answer
    _crowd(world, 20)
    assert list(world.ask(Value()).answer) == [sure]
    _crowd(world, 80)
    assert set(world.ask(Value()).answer) == {unsure, sure}


def test_who_has_time_presses_less(world):
    sure = world.wait(1, confidence=0.99)
    _crowd(world, 20, deadline=3.0)
    assert not world.ask(Value()).answer
    assert list(world.ask(Value(), now=2.8).answer) == [sure]


def test_even_tasks_without_deadline_do_not_pile_up_for_ever(world):
    sure = world.wait(1, confidence=0.99)
    _crowd(world, 20, deadline=inf)
    assert not world.ask(Value()).answer
    _crowd(world, 180, deadline=inf)
    assert list(world.ask(Value()).answer) == [sure]


def test_a_floor_and_a_first_answer_have_no_price(world):
    floor = world.wait(1, confidence=0.999, floor=True)
    _crowd(world, 400)
    turn = world.ask(Value())
    assert floor not in turn.answer and not turn.refuse


@pytest.mark.parametrize("last", [{"behind": True}, {"priority": 7}])
def test_those_of_lower_rank_come_last_and_do_not_press(world, last):
    flood = _crowd(world, 400, **last)
    polite = world.wait(1, confidence=0.99, deadline=0.3)
    turn = world.ask(Value())
    assert list(turn.run) == [polite] and not turn.answer
    world.leave(polite)
    assert list(world.ask(Value()).run) == flood[: 5 if "behind" in last else 8]


@pytest.mark.parametrize("last", [{"behind": True}, {"priority": 7}])
def test_a_deadline_of_lower_rank_is_no_reason_to_wait(world, last):
    world.wait(0, deadline=0.015, **last)
    polite = world.wait(1, confidence=0.5, deadline=0.5)
    assert list(world.ask(Value()).run) == [polite]


def test_lower_ranks_join_a_batch_only_if_no_higher_one_waits_elsewhere(world):
    _hurry(world)
    lead, behind = world.wait(0), world.wait(0, behind=True)
    assert list(world.ask(Value()).run) == [lead, behind]
    world.wait(1)
    assert list(world.ask(Value()).run) == [lead]


def test_a_place_is_not_given_to_one_worth_less_than_what_waits_elsewhere(world):
    """A place takes 5 ms: it costs half of what a first answer elsewhere is values."""
    _hurry(world)
    unsure, sure = world.wait(1, confidence=0.0), world.wait(1, confidence=0.9)
    assert list(world.ask(Value()).run) == [unsure, sure]
    world.wait(2, confidence=0.1)
    assert list(world.ask(Value()).run) == [unsure]


def test_models_are_told_apart(world):
    _hurry(world)
    world.wait(1, model="m", confidence=0.8)
    better = world.wait(1, model="n", confidence=0.2)
    assert list(world.ask(Value()).run) == [better]


def test_a_slowdown_is_taken_in_when_a_batch_has_run(world, view):
    policy = Value()
    task = world.wait(0, deadline=0.015)
    assert list(world.ask(policy).run) == [task]
    view.slowdown = 2.0
    policy.ran(0.0, Ran(Key("m", 0), 1, 0.02, 0.01))
    assert list(world.ask(policy).refuse) == [task]


def test_a_model_that_was_loaded_again_has_new_costs(world, view):
    policy = Value()
    task = world.wait(0, deadline=0.015)
    assert list(world.ask(policy).run) == [task]
    world.leave(task)
    policy.ended(0.0, task)
    world.models = {"m": type(view)(seconds=(0.02, 0.01, 0.01))}
    again = world.wait(0, deadline=0.015)
    assert list(world.ask(policy).refuse) == [again]


def test_a_decision_looks_at_few_of_many(world):
    draw = random.Random(1)
    for _ in range(300):
        world.wait(draw.choice((0, 1, 2)), deadline=draw.uniform(1.0, 2.0), confidence=0.5)
    policy = Value()
    world.ask(policy)
    looked = len(policy._heads._known)
    for _ in range(3000):
        world.wait(draw.choice((0, 1, 2)), deadline=draw.uniform(1.0, 2.0), confidence=0.5)
    fresh = Value()
    world.ask(fresh)
    assert len(fresh._heads._known) <= looked <= 3 * 2 + 8


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
    assert set(heads._values) == {group.key.model for group in heads._heads} | {"m"} == {"m"}


def test_what_has_waited_long_is_answered_with_what_it_has(world):
    kept = [world.wait(0, deadline=9.0) for _ in range(9)]
    waited = world.wait(1, confidence=0.1, patience=1.0)
    patient = world.wait(1, confidence=0.1, patience=2.0)
    floor = world.wait(1, confidence=0.1, patience=1.0, floor=True)
    turn = world.ask(Value(), now=1.01)
    assert list(turn.answer) == [waited]
    assert not turn.refuse
    assert not {waited, patient, floor, *kept}.isdisjoint(turn.run)


def test_one_that_may_be_late_tries_where_nobody_waits_for_the_device(world):
    world.models["m"].late_by = 0.001
    hopeful = world.wait(0, deadline=0.0105)
    assert list(world.ask(Value()).run) == [hopeful]
    world.wait(1, deadline=1.0, confidence=0.1)
    turn = world.ask(Value())
    assert hopeful not in turn.run
    assert hopeful in turn.refuse
