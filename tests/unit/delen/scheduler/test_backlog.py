"""Floods of clients that come back when they are told to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import ceil, inf

import pytest

from delen.core.dispatch import DispatchPolicy, Task
from delen.errors import Overloaded
from delen.scheduler.backlog import LONGEST_PROMISE
from delen.scheduler.core import Scheduler
from delen.scheduler.model_view import ScheduledModel
from delen.scheduler.policy_guard import InRank
from policies.dispatch.published.edf import Edf
from policies.dispatch.value import Value

MakeTask = Callable[..., Task]
BACKLOG = 2.0


def refusals(
    scheduler: Scheduler,
    make_task: MakeTask,
    asking: dict[int, float],
    comes_back: Callable[[float], float],
    lasts: float = inf,
) -> Counter[int]:
    """How often each client was refused that asks at a time in ``asking``, and again after what
    ``comes_back`` makes of the seconds it was told, until it gets in or ``lasts`` seconds are over.
    The device takes just as long as is predicted."""
    refused: Counter[int] = Counter()
    due = [(time, client) for client, time in asking.items()]
    heapify(due)
    now, batch, ends = 0.0, None, inf
    while (due or batch or len(scheduler)) and now < lasts:
        now = max(now, min(due[0][0] if due else inf, ends))
        if batch is not None and ends <= now:
            scheduler.ran(now, batch, batch.predicted)
            for task in batch.tasks:
                if task.segment == task.last:
                    scheduler.end(now, task)
                else:
                    scheduler.resume(now, task, 0.5)
            batch, ends = None, inf
        while due and due[0][0] <= now:
            _, client = heappop(due)
            try:
                scheduler.check_room(now, "t")
                scheduler.add(now, make_task(arrived=now))
            except Overloaded as error:
                refused[client] += 1
                heappush(due, (now + comes_back(error.retry_after), client))
        while batch is None and (decision := scheduler.next(now)).run is not None:
            batch = decision.run
            ends = now + batch.predicted
    return refused


@pytest.mark.parametrize("policy", [InRank, Edf, Value])
def test_who_waits_as_long_as_the_header_says_gets_in(
    view: ScheduledModel, make_task: MakeTask, policy: type[DispatchPolicy]
) -> None:
    scheduler = make(view, policy)
    refused = refusals(scheduler, make_task, dict.fromkeys(range(600), 0.0), ceil)
    assert len(refused) > 500
    assert set(refused.values()) == {1}


def test_who_waits_to_the_millisecond_gets_in_where_batches_are_full(
    view: ScheduledModel, make_task: MakeTask
) -> None:
    refused = refusals(make(view, Edf), make_task, dict.fromkeys(range(600), 0.0), float)
    assert set(refused.values()) == {1}


def test_who_does_not_wait_is_told_no_more_than_the_longest_promise(
    view: ScheduledModel, make_task: MakeTask
) -> None:
    scheduler, told = make(view, Edf), []

    def at_once(seconds: float) -> float:
        told.append(seconds)
        return 0.002

    refusals(scheduler, make_task, dict.fromkeys(range(300), 0.0), at_once, lasts=1.0)
    assert LONGEST_PROMISE < max(told) < LONGEST_PROMISE + BACKLOG
    scheduler.check_room(1.0, "other")


def make(view: ScheduledModel, policy: type[DispatchPolicy]) -> Scheduler:
    scheduler = Scheduler(policy(), policy(), max_backlog=BACKLOG)
    scheduler.learn_model("m", view)
    return scheduler
