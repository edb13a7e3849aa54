from __future__ import annotations

import pytest

from policies.dispatch.published.shared import first_in_rank, join, sizes


def _join(world, lead, now=0.0):
    return list(join(lead, world.groups["m", lead.segment], now, world.models["m"]))


def test_the_first_in_rank_is_found_over_all_groups(world):
    world.wait(1, deadline=3.0)
    first = world.wait(2, deadline=1.0)
    world.wait(0, deadline=2.0)
    world.wait(0, deadline=0.5, behind=True)
    assert first_in_rank(world.groups.values()) is first


def test_tasks_without_deadline_fill_the_batch(world):
    tasks = [world.wait() for _ in range(10)]
    assert _join(world, tasks[3]) == [tasks[3], *tasks[:3], *tasks[4:8]]


def test_mates_join_while_no_plan_is_at_risk(world):
    tasks = [world.wait(deadline=0.047) for _ in range(5)]
    assert _join(world, tasks[0]) == tasks[:2]  # two take 45 ms, three 60


def test_a_task_that_is_late_anyway_holds_no_one_back(world):
    late = world.wait(deadline=0.029)
    tasks = [world.wait(deadline=0.076) for _ in range(5)]
    assert _join(world, late) == [late, *tasks[:3]]


def test_each_plan_is_guarded_to_its_own_end(world):
    short = world.wait(deadline=0.026, last=0)
    mates = [world.wait(deadline=1.0) for _ in range(5)]
    assert _join(world, short) == [short, *mates[:3]]  # 10 ms * 2.5 are in time, 3.0 are not


@pytest.mark.parametrize(
    ("most", "tried"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8])]
)
def test_sizes_are_powers_of_two_and_all(most, tried):
    assert sizes(most) == tried
