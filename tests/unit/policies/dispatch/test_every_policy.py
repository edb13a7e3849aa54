"""What holds of every dispatch policy that is installed with delen."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from importlib.metadata import entry_points
from math import inf
from typing import Any

import pytest

from delen.core.dispatch import Key, Ran, Turn

POLICIES = {point.name: point for point in entry_points(group="delen.dispatch_policies")}


@pytest.fixture(params=POLICIES)
def make_policy(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return POLICIES[request.param].load()


def _crowd(world, seed):
    draw = random.Random(seed)
    for number in range(40):
        segment = draw.choice((0, 0, 1, 2))
        world.wait(
            segment,
            model=draw.choice(("m", "n")),
            tenant=f"app{number % 4}",
            arrived=-draw.random(),
            deadline=draw.choice((inf, draw.uniform(-0.1, 0.5))),
            priority=draw.choice((1, 5)),
            behind=draw.random() < 0.3,
            floor=draw.random() < 0.2,
            threshold=draw.choice((None, 0.8)),
            confidence=draw.random() if segment else 0.0,
            joules_left=draw.choice((inf, 0.03, 0.0)),
            last=draw.choice((segment, 2)),
        )


@pytest.mark.parametrize("seed", range(8))
def test_a_task_that_is_alone_runs_without_a_choice_as_it_would_with_one(
    make_policy, make_world, seed
):
    """One of two policies is always asked to choose."""
    draw = random.Random(seed)
    short, asked = make_policy(), make_policy()
    runs_alone = getattr(short, "runs_alone", lambda *_: False)
    now = 0.0
    for number in range(30):
        world = make_world()
        task = world.wait(
            id=number,
            tenant=draw.choice("ab"),
            arrived=now,
            deadline=draw.choice((inf, now + draw.uniform(-0.01, 0.1))),
            floor=draw.random() < 0.2,
            joules_left=draw.choice((inf, 0.03, 0.01)),
            last=draw.choice((0, 1, 2)),
        )
        while True:
            turn = world.ask(asked, now)
            alone = Turn(run=(task,))
            if not runs_alone(now, task, world.models):
                alone = world.ask(short, now)
            assert [*map(list, alone[:3])] == [*map(list, turn[:3])]
            world.leave(task)
            now += 0.01
            is_done = task not in turn.run or task.segment == task.last
            for policy in (short, asked):
                if task in turn.run:
                    policy.ran(now, Ran(Key(task.model, task.segment), 1, 0.01, 0.011))
                if is_done:
                    policy.ended(now, task)
            if is_done:
                break
            exit = task.segment
            task = world.wait(exit + 1, **{**_fields(task), "exit": exit, "confidence": 0.6})


def _fields(task):
    names = ("id", "tenant", "arrived", "deadline", "floor", "joules_left", "last")
    return {name: getattr(task, name) for name in names}


def test_it_is_named_as_its_file(make_policy):
    assert make_policy().name == make_policy.__module__.rsplit(".", 1)[-1]


@pytest.mark.parametrize("seed", range(8))
def test_its_turns_are_sound_until_nothing_waits(make_policy, world, seed):
    _crowd(world, seed)
    everyone = {task.id for group in world.groups.values() for task in group.tasks}
    for turn in world.drain(make_policy()):
        concerned = [*turn.run, *turn.answer, *turn.refuse]
        assert len({task.id for task in concerned}) == len(concerned)
        assert {task.id for task in concerned} <= everyone
        assert len({(task.model, task.segment - 1 - task.exit) for task in turn.run}) <= 1
        assert len(turn.run) <= 8
        assert all(task.exit >= 0 for task in turn.answer)
        assert all(task.exit < 0 for task in turn.refuse)


def test_it_decides_the_same_again_and_changes_no_task(make_policy, world):
    _crowd(world, 3)
    before = copy.deepcopy(world.groups)
    turns = [world.ask(make_policy()) for _ in range(2)]
    assert [task.id for task in turns[0].run] == [task.id for task in turns[1].run]
    after = [[repr(task) for task in group.tasks] for group in world.groups.values()]
    assert after == [[repr(task) for task in group.tasks] for group in before.values()]


def test_it_forgets_tasks_that_ended(make_policy, world):
    policy = make_policy()
    for round in range(30):
        _crowd(world, round)
        world.drain(policy)
        policy.ran(0.0, Ran(Key("m", 0), 1, 0.01, 0.01))
    kept = [value for value in vars(policy).values() if isinstance(value, dict)]
    assert sum(map(len, kept)) < 40
