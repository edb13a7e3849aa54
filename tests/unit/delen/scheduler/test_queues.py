from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.core.dispatch import Key, Task
from delen.scheduler.queues import Groups
from tests.sorted_group import SortedGroup

MakeTask = Callable[..., Task]
KEY = Key("m", 0)


def test_groups_are_by_model_and_segment_and_empty_ones_are_not_there(make_task: MakeTask) -> None:
    groups = Groups()
    tasks = [make_task(), make_task(segment=1), make_task(model="other"), make_task()]
    for task in tasks:
        groups.add(task, 1.0)
    assert set(groups.view) == {KEY, Key("m", 1), Key("other", 0)}
    assert len(groups) == 4
    assert groups.positions[tasks[1].id].group.key == ("m", 1)
    assert groups.take(tasks[1].id) is tasks[1]
    assert Key("m", 1) not in groups.view
    assert tasks[1].id not in groups


def test_a_task_waits_once(make_task: MakeTask) -> None:
    groups, task = Groups(), make_task()
    groups.add(task, 1.0)
    with pytest.raises(ValueError, match="waits already"):
        groups.add(task, 1.0)


def test_what_does_not_wait_cannot_be_removed(make_task: MakeTask) -> None:
    groups, task = Groups(), make_task()
    groups.add(task, 1.0)
    with pytest.raises(KeyError):
        groups.take(300)
    assert groups.take(task.id) is task


ranks = st.tuples(
    st.integers(1, 3), st.booleans(), st.sampled_from([1.0, 2.0, inf]), st.integers(0, 5)
)


@given(st.lists(ranks, min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_a_group_is_ordered_as_the_reference_whatever_leaves(
    given_ranks: list[tuple[int, bool, float, int]], random: Random
) -> None:
    groups, reference = Groups(), SortedGroup(KEY)
    for id, (priority, behind, deadline, arrived) in enumerate(given_ranks):
        task = Task(id, "m", "t", arrived, 0, 2, deadline, priority, behind=behind)
        groups.add(task, 1.0)
        reference.add(task)
    while reference.tasks:
        group = groups.view[KEY]
        assert list(group) == list(reference)
        assert group.first(3) == reference.first(3)
        assert group.oldest is reference.oldest
        assert len(group) == len(reference)
        count = random.randint(1, min(4, len(group)))
        gone = random.sample(reference.tasks, count)
        for task in gone:
            reference.remove(task)
        assert [groups.take(task.id) for task in gone] == gone
    assert not groups.view


def test_the_seconds_before_a_task_are_those_of_what_ranks_before(make_task: MakeTask) -> None:
    groups = Groups()
    for deadline in (1.0, 2.0, 3.0, 4.0):
        groups.add(make_task(deadline=deadline), 0.5)
    group = groups.view[KEY]
    assert group.seconds_before(5, False, 2.5) == pytest.approx(1.0)
    assert group.seconds_before(4, False, inf) == 0.0
    assert group.seconds_before(6, False, 0.0) == pytest.approx(2.0)
    groups.take(group.first(1)[0].id)
    assert group.seconds_before(5, False, 2.5) == pytest.approx(0.5)
