"""The reference for groups of waiting tasks: short, and slow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from delen.core.dispatch import Key, Task


@dataclass(slots=True, eq=False)
class SortedGroup:
    """A Group that holds its tasks in a list."""

    key: Key
    tasks: list[Task] = field(default_factory=list)
    changes: int = 0

    def add(self, task: Task) -> None:
        self.tasks.append(task)
        self.changes += 1

    def remove(self, task: Task) -> None:
        self.tasks.remove(task)
        self.changes += 1

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.first(len(self.tasks)))

    def first(self, count: int) -> Sequence[Task]:
        return sorted(self.tasks, key=lambda task: task.rank)[:count]

    @property
    def oldest(self) -> Task:
        return min(self.tasks, key=lambda task: (task.arrived, task.id))

    @property
    def last(self) -> Task:
        return max(self.tasks, key=lambda task: task.rank)
