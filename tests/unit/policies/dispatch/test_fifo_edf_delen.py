from __future__ import annotations

import pytest

from delen.core.dispatch import PolicyCapabilities
from policies.dispatch.published.delen import StaticConditions
from policies.dispatch.published.delen_predictive import PredictiveConditions
from policies.dispatch.published.edf import Edf
from policies.dispatch.published.fifo import Fifo


def test_fifo_serves_who_came_first_at_whatever_segment(world):
    world.wait(0, arrived=2.0, deadline=0.1)
    first = world.wait(1, arrived=1.0)
    world.wait(1, arrived=3.0, deadline=0.02)
    assert world.ask(Fifo()).run[0] is first


def test_fifo_batches(world):
    tasks = [world.wait(arrived=float(number)) for number in range(3)]
    assert list(world.ask(Fifo()).run) == tasks


def test_edf_serves_the_first_in_rank(world):
    world.wait(0, arrived=0.0, deadline=0.9)
    soon = world.wait(1, arrived=1.0, deadline=0.5)
    assert world.ask(Edf()).run[0] is soon
    urgent = world.wait(2, arrived=2.0, priority=1)
    assert world.ask(Edf()).run[0] is urgent


def test_delen_runs_one_job_to_its_end_before_the_next(world):
    old, young = world.wait(arrived=0.0), world.wait(arrived=1.0)
    assert [list(turn.run) for turn in world.drain(StaticConditions())] == [[old]] * 3 + [
        [young]
    ] * 3


@pytest.mark.parametrize(
    "given", [{"deadline": 0.0199}, {"joules_left": 0.0}, {"confidence": 0.91}]
)
def test_delen_stops_after_the_exit_at_which_a_condition_holds(world, given):
    job = world.wait(2, **given)
    turn = world.ask(StaticConditions(confidence=0.9), now=0.02)
    assert (list(turn.run), list(turn.answer)) == ([], [job])


@pytest.mark.parametrize(
    "given", [{"deadline": 0.0201}, {"joules_left": 0.001}, {"confidence": 0.89}]
)
def test_delen_does_not_look_ahead(world, given):
    job = world.wait(2, **given)
    assert list(world.ask(StaticConditions(confidence=0.9), now=0.02).run) == [job]


def test_delen_has_no_threshold_unless_one_is_set(world):
    job = world.wait(1, confidence=1.0)
    assert list(world.ask(StaticConditions()).run) == [job]


def test_delen_has_no_plans():
    assert StaticConditions.capabilities == PolicyCapabilities(
        plans=False, admits=False, guards=False
    )


def test_a_job_without_answer_is_never_stopped_by_delen(world):
    job = world.wait(0, deadline=-1.0)
    assert list(world.ask(StaticConditions()).run) == [job]


def test_edf_leaves_admission_to_the_daemon():
    assert Edf.capabilities.admits
    assert not StaticConditions.capabilities.admits


@pytest.mark.parametrize("given", [{"deadline": 0.0299}, {"joules_left": 0.019}])
def test_predictive_conditions_stop_before_a_cap_is_passed(world, given):
    """Its next segment takes 10 ms and 20 mJ."""
    job = world.wait(1, **given)
    turn = world.ask(PredictiveConditions(), now=0.02)
    assert (list(turn.run), list(turn.answer)) == ([], [job])


@pytest.mark.parametrize("given", [{"deadline": 0.0301}, {"joules_left": 0.021}])
def test_predictive_conditions_go_on_while_the_caps_hold(world, given):
    world.wait(0, arrived=-1.0)
    job = world.wait(1, **given)
    assert list(world.ask(PredictiveConditions(), now=0.02).run) == [job]


def test_predictive_conditions_refuse_who_gets_no_answer_in_time(world):
    late = world.wait(0, deadline=0.009)
    assert list(world.ask(PredictiveConditions()).refuse) == [late]
