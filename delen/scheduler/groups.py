"""The waiting tasks by model and segment, each group in order of rank."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from types import MappingProxyType

from delen.dispatch import Key, Task
from delen.scheduler.lazy_heap import LazyHeap

Entry = tuple[bool, int, float, float, int, Task]
"""A task behind the rank that it had when it was added: nothing that happens to the task while
it waits can put the order in disorder."""


_SPARE = 64
"""So many places of tasks that have left are kept in front, and as many as there are tasks."""


class WaitingGroup:
    """A Group. Reading the first n is O(n), and so is taking them out. Adding is O(log n) and a
    move of the pointers behind, which even for 10,000 tasks takes less than a tree would.

    ``seconds`` is the device time that its tasks need, as it was told when they were added.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        self.changes = 0
        self.seconds = 0.0
        self._ranked: list[Entry] = []
        self._gone = 0
        self._by_age: LazyHeap | None = None
        self._aged: dict[int, Task] = {}

    def __len__(self) -> int:
        return len(self._ranked) - self._gone

    def __iter__(self) -> Iterator[Task]:
        return (self._ranked[place][5] for place in range(self._gone, len(self._ranked)))

    def first(self, count: int) -> Sequence[Task]:
        return [entry[5] for entry in self._ranked[self._gone : self._gone + count]]

    @property
    def oldest(self) -> Task:
        """The task that arrived first. LookupError without any."""
        if self._by_age is None:  # kept from the first question on: not every policy asks
            self._by_age = LazyHeap()
            for entry in self._ranked[self._gone :]:
                self._by_age.add(entry[4], entry[3])
                self._aged[entry[4]] = entry[5]
        first = self._by_age.first()
        if first is None:
            raise LookupError(f"no task waits in {self.key}")
        return self._aged[first[1]]

    @property
    def last(self) -> Task:
        """The task that ranks last; there must be one."""
        return self._ranked[-1][5]

    def seconds_before(self, priority: int, behind: bool, due: float) -> float:
        """Device time that the tasks need which rank before a new one with these properties."""
        rank = (behind, priority, due, inf)
        place = bisect_right(self._ranked, rank, lo=self._gone)
        return self.seconds * ((place - self._gone) / len(self))

    def _add(self, entry: Entry, seconds: float) -> None:
        self.changes += 1
        insort(self._ranked, entry, lo=self._gone)
        self.seconds += seconds
        if self._by_age is not None:
            self._by_age.add(entry[4], entry[3])
            self._aged[entry[4]] = entry[5]

    def _take(self, places: Sequence[Place]) -> None:
        ranked, gone = self._ranked, self._gone
        for place in places:
            entry = place.entry
            if ranked[gone] is entry:  # most leave in order
                gone += 1
            else:
                del ranked[bisect_left(ranked, entry, lo=gone)]
            self.seconds -= place.seconds
            if self._by_age is not None:
                self._by_age.discard(entry[4])
                del self._aged[entry[4]]
        if gone > _SPARE and 2 * gone > len(ranked):
            del ranked[:gone]
            gone = 0
        self._gone = gone
        self.changes += len(places)


@dataclass(slots=True, eq=False)
class Place:
    """Where a task waits."""

    group: WaitingGroup
    entry: Entry
    seconds: float


class Groups:
    """All groups that are not empty, and where each task is.

    ``view`` is the policies': it leaves out the groups whose segment is not in memory now.
    ``places`` are those of all tasks that wait, by id; both are for reading.
    """

    def __init__(self) -> None:
        self._groups: dict[Key, WaitingGroup] = {}
        self._parked: dict[Key, WaitingGroup] = {}
        self._depths: dict[str, int] = {}
        self.places: dict[int, Place] = {}
        self.view: Mapping[Key, WaitingGroup] = MappingProxyType(self._groups)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, id: int) -> bool:
        return id in self.places

    def keep(self, model: str, depth: int) -> None:
        """Of ``model``, only the first ``depth`` segments can run from now on."""
        self._depths[model] = depth
        for groups in (self._groups, self._parked):
            for key in [key for key in groups if key.model == model]:
                self._home(key)[key] = groups.pop(key)

    def forget(self, model: str) -> None:
        """Whatever is in memory of ``model``, all its segments can run."""
        self._depths.pop(model, None)

    def parked(self, model: str) -> list[Task]:
        """The tasks of ``model`` whose segment is not in memory."""
        return [task for key, group in self._parked.items() if key.model == model for task in group]

    def is_parked(self, model: str, segment: int) -> bool:
        """Whether ``segment`` of ``model`` is not in memory."""
        return segment >= self._depths.get(model, inf)

    def _home(self, key: Key) -> dict[Key, WaitingGroup]:
        return self._parked if self._depths and self.is_parked(*key) else self._groups

    def add(self, task: Task, seconds: float) -> None:
        """Queue ``task``, which needs ``seconds`` of device time. ValueError if it waits."""
        if task.id in self.places:
            raise ValueError(f"task {task.id} waits already")
        key = Key(task.model, task.segment)
        groups = self._home(key)
        group = groups.get(key)
        if group is None:
            group = groups[key] = WaitingGroup(key)
        entry = (*task.rank, task)
        group._add(entry, seconds)
        self.places[task.id] = Place(group, entry, seconds)

    def take(self, ids: Sequence[int]) -> tuple[Task, ...]:
        """Take out some tasks of one group; KeyError if one does not wait."""
        places = [self.places[id] for id in ids]
        for id in ids:
            del self.places[id]
        group = places[0].group
        group._take(places)
        if not len(group):
            del self._home(group.key)[group.key]
        return tuple([place.entry[5] for place in places])
