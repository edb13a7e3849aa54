"""The work that waits and that is to come: who has too much of it, and who has to wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from delen.core.dispatch import Task
from delen.scheduler.backlog import Backlog
from delen.scheduler.model_view import ScheduledModel
from delen.scheduler.queues import Groups, WaitingGroup
from delen.scheduler.shares import Shares


class _ToCome(NamedTuple):
    """Tasks that are to be added as room frees, with their common rank: device seconds in batches
    until their first answers, and until their ends."""

    behind: bool
    priority: int
    deadline: float
    mandatory: float
    expected: float


class WaitingWork:
    """What the tasks in ``groups`` take, of which at most ``most`` seconds are accepted in all."""

    def __init__(
        self,
        most: float,
        shares: Shares,
        groups: Groups,
        models: Mapping[str, ScheduledModel],
    ) -> None:
        self.backlog = Backlog(most)
        self._shares = shares
        self._groups = groups
        self._models = models
        self._to_come: dict[int, _ToCome] = {}

    def expect(self, id: int, task: Task, count: int) -> None:
        """``count`` more tasks like ``task``, which has just been added, are to be added as room
        frees; a later call with the same ``id`` says how many then. They take no room, but those
        that they will rank before have to wait for them."""
        view = self._models[task.model]
        work = view.expected(task)
        batched = count * view.discount(task.segment, count) / view.interference.gain
        self._to_come[id] = _ToCome(
            task.behind,
            task.priority,
            task.deadline,
            batched * view.mandatory(task, work),
            batched * work,
        )

    def expect_no_more(self, id: int) -> None:
        """No more tasks are to come of those that were said to under ``id``."""
        self._to_come.pop(id, None)

    def has_room(self, tenant: str, part: float) -> bool:
        """Whether at most this ``part`` of what ``tenant``, and the names that share its bucket,
        may have waiting waits."""
        bucket = self._shares.bucket_of(tenant)
        return not self.backlog.is_over(bucket, part * self._shares.share_of_bucket(bucket))

    def check_room(self, now: float, tenant: str) -> None:
        """Raises Overloaded, with the time until it ends, if ``tenant`` and the names that share
        its bucket have more waiting work than their share of the largest backlog."""
        bucket = self._shares.bucket_of(tenant)
        share = self._shares.share_of_bucket(bucket)
        if self.backlog.is_over(bucket, share):
            raise self.backlog.refusal(now, tenant, bucket, share, self._best_factor())

    def before(self, priority: int, behind: bool, due: float, latest: float) -> float:
        """Device seconds that cannot be left out of what ranks before a new task with these
        properties. What is to come is due at the ``latest`` then."""
        before = sum(
            group.seconds_before(priority, behind, due) * self._discount(group)
            for group in self._groups.view.values()
        )
        if self._to_come:
            rank = behind, priority, due
            before += sum(
                each.mandatory
                for each in self._to_come.values()
                if (each.behind, each.priority, min(each.deadline, latest)) < rank
            )
        return before

    def seconds(self) -> float:
        """Device seconds of everything that waits or is to come."""
        to_come = sum(each.expected for each in self._to_come.values())
        return self.backlog.seconds * self.backlog.batching_factor(self._best_factor()) + to_come

    def _best_factor(self) -> float:
        """What waiting work takes in the largest batches, over what it takes alone."""
        groups = self._groups.view.values()
        waiting = sum(map(len, groups)) or 1
        return sum(len(group) * self._discount(group) for group in groups) / waiting

    def _discount(self, group: WaitingGroup) -> float:
        """What the tasks of ``group`` take in batches on all lanes, over what they take one by
        one alone."""
        view = self._models[group.key.model]
        return view.discount(group.key.segment, len(group)) / view.interference.gain
