"""Whether the turn of a policy can be followed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, isnan

from delen.core.dispatch import ModelView, Task, Turn
from delen.core.kind import kind_of
from delen.scheduler.queues import Groups

_SEQUENCES = (tuple, list)


def check_turn(
    turn: object,
    now: float,
    groups: Groups,
    models: Mapping[str, ModelView],
    must_wake: bool,
    delay_until: Callable[[], float],
) -> Turn:
    """``turn``, if it can be followed; ValueError says why it cannot.

    ``must_wake`` is true if nothing else is going on that would lead to the next turn.
    ``delay_until`` says when something has to run.
    """
    if not isinstance(turn, Turn):
        raise ValueError(f"{turn!r} is not a Turn")
    run, answer, refuse, wake = turn
    for tasks in (run, answer, refuse):
        if type(tasks) not in _SEQUENCES and not isinstance(tasks, _SEQUENCES):
            raise ValueError(f"it names tasks in {kind_of(tasks)}, not in a list or tuple")
    named = [*run, *answer, *refuse]
    for task in named:
        if not isinstance(task, Task) or task.id not in groups.positions:
            raise ValueError(f"it names {task!r}, which does not wait")
    if answer or refuse:
        _check_ends(answer, refuse)
    if len(named) > 1:
        ids = [task.id for task in named]
        if len(set(ids)) < len(ids):
            raise ValueError(f"it names a task twice among {ids}")
        if len(run) > 1:
            _check_batch(run, groups, models)
    elif not named:
        _check_delay(wake, now, must_wake, delay_until)
    if isnan(wake):
        raise ValueError("wake is not a number")
    return turn


def _check_ends(answer: Sequence[Task], refuse: Sequence[Task]) -> None:
    for task in answer:
        if task.exit < 0:
            raise ValueError(f"it answers task {task.id}, which has no answer")
    for task in refuse:
        if task.exit >= 0:
            raise ValueError(f"it refuses task {task.id}, which has an answer")


def _check_batch(run: Sequence[Task], groups: Groups, models: Mapping[str, ModelView]) -> None:
    positions = groups.positions
    group = positions[run[0].id].group
    for task in run[1:]:
        if positions[task.id].group is not group:
            raise ValueError("it runs tasks of several groups")
    model = group.key.model
    limit = models[model].max_batch
    if len(run) > limit:
        raise ValueError(f"it runs {len(run)} tasks; the largest batch of {model} is {limit}")


def _check_delay(
    wake: float, now: float, must_wake: bool, delay_until: Callable[[], float]
) -> None:
    if wake <= now or (must_wake and wake == inf):
        raise ValueError(f"it runs nothing until {wake}, and it is {now}")
    if delay_until() <= now:
        raise ValueError("it delays everything though a task has to start or has waited long")
