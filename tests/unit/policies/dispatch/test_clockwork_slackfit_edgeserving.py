from __future__ import annotations

import pytest

from policies.dispatch.published.clockwork import Clockwork
from policies.dispatch.published.edgeserving import EdgeServing
from policies.dispatch.published.slackfit import SlackFit


@pytest.mark.parametrize("policy", [Clockwork, SlackFit, EdgeServing])
def test_what_has_started_is_not_preempted(world, policy):
    started = [world.wait(1), world.wait(1)]
    world.wait(0, deadline=0.031, priority=1)
    assert list(world.ask(policy()).run) == started


def test_clockwork_refuses_what_would_be_late(world):
    late, kept = world.wait(deadline=0.029), world.wait(deadline=0.031)
    first, second = (world.ask(Clockwork()), None)
    assert list(first.refuse) == [late] and not first.run
    world.leave(late)
    second = world.ask(Clockwork())
    assert list(second.run) == [kept]


def test_clockwork_takes_the_largest_batch_that_is_in_time(world):
    tasks = [world.wait(deadline=0.047) for _ in range(4)]
    assert list(world.ask(Clockwork()).run) == tasks[:2]


@pytest.mark.parametrize(
    ("slack", "waiting", "chosen"),
    [
        (1.0, 1, (1, 3)),  # alone and with time: to the end
        (0.025, 1, (1, 2)),
        (0.005, 1, (1, 1)),  # hopeless: the least there is
        (0.065, 4, (4, 2)),  # 50 ms: the highest bucket that four fit
        (0.029, 4, (4, 1)),  # 25 ms in the bucket from 20 ms, where more of them beat depth
    ],
)
def test_slackfit_fills_the_slack(world, slack, waiting, chosen):
    tasks = [world.wait(deadline=slack) for _ in range(waiting)]
    policy = SlackFit()
    runs = [turn.run for turn in world.drain(policy) if turn.run and tasks[0] in turn.run]
    assert (len(runs[0]), len(runs)) == chosen


def test_slackfit_does_not_cut_a_floor(world):
    task = world.wait(deadline=0.015, floor=True)
    assert [list(turn.run) for turn in world.drain(SlackFit())] == [[task]] * 3


def test_edgeserving_takes_the_most_accuracy_a_second_while_nothing_is_violated(world):
    task = world.wait()
    policy = EdgeServing()
    assert list(world.drain(policy)[0].run) == [task]
    assert task.exit == 1  # stretched, 0.605 in 20 ms beat 0.08 in 10 and 0.78 in 30


def test_edgeserving_takes_the_first_exit_where_no_other_is_better(world):
    world.models["m"].accuracies = (0.8, 0.8, 0.7)
    task = world.wait()
    world.drain(EdgeServing())
    assert task.exit == 0


def test_edgeserving_counts_the_queue(world):
    world.wait(model="m")
    world.wait(model="n")
    assert [world.wait(model="n").model for _ in "ab"] == ["n", "n"]
    assert {task.model for task in world.ask(EdgeServing()).run} == {"n"}


def test_violations_make_edgeserving_avoid_them(world):
    """Five that would be violated together go alone once violations have a price."""
    policy = EdgeServing()
    tasks = [world.wait(deadline=0.0155) for _ in range(5)]
    assert len(world.ask(policy).run) == 5
    for _ in range(30):
        policy.ended(9.0, world.wait(deadline=0.0))
    world.groups["m", 0].tasks[:] = tasks
    assert len(world.ask(policy).run) == 2  # 15 ms
    for _ in range(600):
        policy.ended(0.0, tasks[0])  # kept bounds pay it back
    assert len(world.ask(policy).run) == 5
