"""How long a policy may hold back everything that waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from delen.dispatch import Task
from delen.scheduler.lazy_heap import LazyHeap

LONGEST_HOLD = 1.0
"""Seconds on end for which everything may be held back."""


class Hold:
    """Until when nothing has to run: some waiting task has to start then, or the hold is over.

    ``latest_start`` says when a task has to start to get an answer, or a better one, in time. What
    waits is kept in order of that from the first hold on: most policies never hold anything back.
    """

    def __init__(self, latest_start: Callable[[Task], float]) -> None:
        self._latest_start = latest_start
        self._since: float | None = None
        self._starts: LazyHeap | None = None

    def add(self, task: Task) -> None:
        """``task`` waits from now on."""
        if self._starts is not None and task.deadline < inf:
            self._starts.add(task.id, self._latest_start(task))

    def discard(self, id: int) -> None:
        """Task ``id`` waits no longer."""
        if self._starts is not None:
            self._starts.discard(id)

    def end(self) -> None:
        """Something was done."""
        self._since = None

    def until(self, now: float, waiting: Iterable[Iterable[Task]]) -> float:
        """When the hold that goes on, or begins ``now``, has to end; now or before: at once."""
        if self._since is None:
            self._since = now
        if self._starts is None:
            self._starts = LazyHeap()
            for group in waiting:
                for task in group:
                    self.add(task)
        first = self._starts.first()
        longest = self._since + LONGEST_HOLD
        return longest if first is None else min(longest, first[0])
