"""The waiting tasks by model and segment, each group in order of rank."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from types import MappingProxyType

from delen.core.dispatch import Key, Task
from delen.scheduler.lazy_heap import LazyHeap

Rank = tuple[bool, int, float, float, int]
"""The rank that a task had when it was added: no later change of the task can break the order."""


class WaitingGroup:
    """A Group. Adding and removing a task is O(log n) and a move of the pointers behind it, which
    takes less than a tree even for 10,000 tasks.

    ``seconds`` is the device time that its tasks need, as of when they were added.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        self.changes = 0
        self.seconds = 0.0
        self._ranks: list[Rank] = []
        self._tasks: list[Task] = []
        self._by_age: LazyHeap | None = None
        self._aged: dict[int, Task] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    def first(self, count: int) -> Sequence[Task]:
        return self._tasks[:count]

    @property
    def oldest(self) -> Task:
        """The task that arrived first. LookupError without any."""
        if len(self._tasks) == 1:
            return self._tasks[0]
        if self._by_age is None:  # kept from the first call on: few policies need it
            self._by_age = LazyHeap()
            for task in self._tasks:
                self._by_age.add(task.id, task.arrived)
                self._aged[task.id] = task
        if not self._aged:
            raise LookupError(f"no task waits in {self.key}")
        return self._aged[self._by_age.first()[1]]

    @property
    def last(self) -> Task:
        """The task that ranks last; there must be one."""
        return self._tasks[-1]

    def seconds_before(self, priority: int, behind: bool, due: float) -> float:
        """Device time of the tasks that rank before a new one with these properties."""
        position = bisect_right(self._ranks, (behind, priority, due, inf))
        return self.seconds * (position / len(self._tasks))

    def _add(self, task: Task, position: QueuePosition) -> None:
        ranks, rank = self._ranks, position.rank
        if not ranks or ranks[-1] <= rank:
            ranks.append(rank)
            self._tasks.append(task)
        else:
            index = bisect_right(ranks, rank)
            ranks.insert(index, rank)
            self._tasks.insert(index, task)
        self.changes += 1
        self.seconds += position.seconds
        if self._by_age is not None:
            self._by_age.add(task.id, task.arrived)
            self._aged[task.id] = task

    def _take(self, position: QueuePosition) -> Task:
        ranks, rank = self._ranks, position.rank
        index = 0 if ranks[0] is rank else bisect_left(ranks, rank)
        del ranks[index]
        task = self._tasks.pop(index)
        self.changes += 1
        self.seconds = self.seconds - position.seconds if ranks else 0.0
        if self._by_age is not None:
            self._by_age.discard(task.id)
            del self._aged[task.id]
        return task


@dataclass(slots=True, eq=False)
class QueuePosition:
    """The group and rank with which a task waits, and its device time."""

    group: WaitingGroup
    rank: Rank
    seconds: float


class Groups:
    """All groups, and where each task waits.

    ``view`` is what policies see: it leaves out groups that are empty, and groups whose segment is
    not in memory now. ``positions`` are those of all waiting tasks, by id. Both are for reading.
    """

    def __init__(self) -> None:
        self._all: dict[tuple[str, int], WaitingGroup] = {}
        self._groups: dict[Key, WaitingGroup] = {}
        self._parked: dict[Key, WaitingGroup] = {}
        self._depths: dict[str, int] = {}
        self.positions: dict[int, QueuePosition] = {}
        self.view: Mapping[Key, WaitingGroup] = MappingProxyType(self._groups)

    def __len__(self) -> int:
        return len(self.positions)

    def __contains__(self, id: int) -> bool:
        return id in self.positions

    def keep(self, model: str, depth: int) -> None:
        """Only the first ``depth`` segments of ``model`` can run from now on."""
        self._depths[model] = depth
        for groups in (self._groups, self._parked):
            for key in [key for key in groups if key.model == model]:
                self._home(key)[key] = groups.pop(key)

    def forget(self, model: str) -> None:
        """Drop ``model``, none of whose tasks waits; if it comes back, all its segments can run."""
        self._depths.pop(model, None)
        self._all = {key: group for key, group in self._all.items() if group.key.model != model}

    def parked(self, model: str) -> list[Task]:
        """The tasks of ``model`` whose segment is not in memory."""
        return [task for key, group in self._parked.items() if key.model == model for task in group]

    def is_parked(self, model: str, segment: int) -> bool:
        """Whether ``segment`` of ``model`` is not in memory."""
        return bool(self._depths) and segment >= self._depths.get(model, inf)

    def _home(self, key: Key) -> dict[Key, WaitingGroup]:
        return self._parked if self._depths and self.is_parked(*key) else self._groups

    def add(self, task: Task, seconds: float) -> None:
        """Queue ``task``, which needs ``seconds`` of device time. ValueError if it waits."""
        if task.id in self.positions:
            raise ValueError(f"task {task.id} waits already")
        model, segment = task.model, task.segment
        group = self._all.get((model, segment))
        if group is None:
            group = self._all[model, segment] = WaitingGroup(Key(model, segment))
        position = self.positions[task.id] = QueuePosition(group, task.rank, seconds)
        group._add(task, position)
        if len(group._tasks) == 1:
            self._home(group.key)[group.key] = group

    def take(self, id: int) -> Task:
        """Take out a task; KeyError if it does not wait."""
        position = self.positions.pop(id)
        group = position.group
        task = group._take(position)
        if not group._tasks:
            del self._home(group.key)[group.key]
        return task
