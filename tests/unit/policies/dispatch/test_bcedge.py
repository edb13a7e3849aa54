"""BCEdge: the setting is the network's, the batch is the setting's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from delen.core.dispatch import Task
from policies.dispatch.published.bcedge import (
    FEATURES,
    PERIOD,
    SETTINGS,
    SHAPES,
    BCEdge,
    Setting,
)
from policies.learnt import Learnt, Network, OutsideTraining

LANES = (1.0, 1.2, 1.4, 1.6)
WITHIN = 0.4


def _learnt(*preferred: Setting, most: float = 1e6) -> dict[str, Any]:
    """A file of a network that prefers these settings, the first most."""
    weights = [np.zeros(shape) for shape in SHAPES]
    for place, setting in enumerate(reversed(preferred), start=1):
        weights[-1][SETTINGS.index(setting)] = place
    everything = np.full(len(FEATURES), most)
    return Learnt(Network(weights, SHAPES), -everything, everything).to_arrays()


def _wait(world: Any, count: int, now: float = 0.0, **given: Any) -> list[Task]:
    return [world.wait(arrived=now, deadline=now + WITHIN, **given) for _ in range(count)]


def _settled(world: Any, policy: BCEdge) -> float:
    """A first period passes, in which one request was answered; when it is over."""
    (task,) = _wait(world, 1)
    assert world.ask(policy).run == [task] or world.ask(policy).run == (task,)
    world.leave(task)
    policy.ended(0.02, task)
    return PERIOD * WITHIN


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_a_batch_is_as_large_as_the_network_has_it(make_world: Any, batch: int) -> None:
    world = make_world(corun=LANES)
    policy = BCEdge(_learnt(Setting(batch, 2)))
    now = _settled(world, policy)
    _wait(world, 10, now)
    assert len(world.ask(policy, now).run) == batch


def test_settings_that_the_device_does_not_have_are_not_taken(make_world: Any) -> None:
    world = make_world(max_batch=8, corun=LANES[:2])
    policy = BCEdge(_learnt(Setting(32, 1), Setting(4, 4), Setting(2, 2)))
    now = _settled(world, policy)
    _wait(world, 10, now)
    assert len(world.ask(policy, now).run) == 2


def test_no_batch_starts_beside_more_others_than_the_setting_has(make_world: Any) -> None:
    world = make_world(corun=LANES, busy=2)
    policy = BCEdge(_learnt(Setting(4, 2)))
    now = _settled(world, policy)
    _wait(world, 3, now)
    turn = world.ask(policy, now)
    assert not turn.run and now < turn.wake < now + WITHIN
    assert len(world.ask(policy, turn.wake).run) == 3, "a deadline would be missed"
    world.models["m"].busy = 1
    assert len(world.ask(policy, now).run) == 3


def test_what_has_begun_goes_before_what_is_new(make_world: Any) -> None:
    world = make_world(corun=LANES)
    policy = BCEdge(_learnt(Setting(4, 1)))
    now = _settled(world, policy)
    _wait(world, 4, now)
    begun = world.wait(1, arrived=now, deadline=now + 2 * WITHIN)
    assert list(world.ask(policy, now).run) == [begun]


def test_what_cannot_be_in_time_is_given_up(make_world: Any) -> None:
    world = make_world(corun=LANES)
    policy = BCEdge(_learnt(Setting(4, 1)))
    now = _settled(world, policy)
    lost = world.wait(arrived=now - WITHIN, deadline=now + 0.001)
    kept = _wait(world, 2, now)
    assert list(world.ask(policy, now).refuse) == [lost]
    world.leave(lost)
    assert list(world.ask(policy, now).run) == kept


def test_requests_without_deadlines_are_far_from_its_training(make_world: Any) -> None:
    world = make_world(corun=LANES)
    policy = BCEdge(_learnt(Setting(4, 1)))
    task = world.wait()
    for _ in range(2):
        with pytest.raises(OutsideTraining, match="deadline"):
            policy.choose(0.0, world.groups, world.models)
    world.leave(task)
    (task,) = _wait(world, 1)
    assert list(policy.choose(0.0, world.groups, world.models).run) == [task]


def test_a_state_far_from_its_training_lasts_a_period(make_world: Any) -> None:
    world = make_world(corun=LANES)
    policy = BCEdge(_learnt(Setting(4, 1), most=7.0))
    now = _settled(world, policy)
    late = world.wait(arrived=now, deadline=now + 100 * WITHIN)
    for later in (now, now + 0.1):
        with pytest.raises(OutsideTraining, match="deadline / time of one"):
            policy.choose(later, world.groups, world.models)
    world.leave(late)
    now += PERIOD * 100 * WITHIN
    tasks = _wait(world, 2, now)
    assert list(policy.choose(now, world.groups, world.models).run) == tasks
