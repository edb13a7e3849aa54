"""Tasks without a deadline, while others that have one always wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import inf

from delen.core.dispatch import Group, Key, ModelView, Task, Turn
from delen.errors import Overloaded
from delen.scheduler.core import Scheduler
from delen.scheduler.model_view import ScheduledModel
from delen.scheduler.policy_guard import InRank

BACKLOG = 1.0
LASTS = 60.0


class OneByOne(InRank):
    """Runs what ranks first alone."""

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        return Turn(run=super().choose(now, waiting, models).run[:1])


def test_what_has_waited_long_takes_at_most_a_fifth_of_the_device(
    view: ScheduledModel, make_task: Callable[..., Task]
) -> None:
    """As many tasks without a deadline are sent as are taken."""
    policy = OneByOne()
    scheduler = Scheduler(policy, policy, max_backlog=BACKLOG)
    scheduler.learn_model("m", view)
    now, seconds = 0.0, Counter[bool]()

    def add(deadline: float) -> Task:
        task = make_task(arrived=now, deadline=deadline)
        scheduler.add(now, task)
        return task

    def room() -> bool:
        try:
            scheduler.check_room(now, "t")
        except Overloaded:
            return False
        return True

    hurried = add(0.2)
    while now < LASTS:
        while room():
            add(inf)
        decision = scheduler.next(now)
        if decision.overdue:
            hurried = add(now + 0.2)
        if (batch := decision.run) is None:
            continue
        (task,) = batch.tasks
        is_patient = task.deadline == inf
        now += batch.predicted
        seconds[is_patient] += batch.predicted
        scheduler.ran(now, batch, batch.predicted)
        if task.segment < task.last:
            scheduler.resume(now, task, confidence=0.5)
            continue
        scheduler.end(now, task)
        if task is hurried:
            hurried = add(now + 0.2)
    assert 0.1 < seconds[True] / seconds.total() <= 0.2
