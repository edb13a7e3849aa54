"""How long a policy may delay everything that waits, so that a batch can grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from delen.core.dispatch import Task
from delen.scheduler.lazy_heap import LazyHeap

LONGEST_DELAY = 1.0
"""Seconds for which everything may be delayed."""


class BatchingDelay:
    """Until when nothing has to run: then some waiting task has to start, or the delay is over.

    ``latest_start`` says when a task has to start to get an answer, or a better one, in time;
    ``waiting`` are the tasks that wait now.
    """

    def __init__(self, latest_start: Callable[[Task], float], waiting: Iterable[Task]) -> None:
        self._latest_start = latest_start
        self._since: float | None = None
        self._starts = LazyHeap()
        for task in waiting:
            self.add(task)

    def add(self, task: Task) -> None:
        """``task`` waits from now on."""
        if task.deadline < inf:
            self._starts.add(task.id, self._latest_start(task))

    def discard(self, id: int) -> None:
        """Task ``id`` waits no longer."""
        self._starts.discard(id)

    def end(self) -> None:
        """Something ran or ended, or nothing waits any more."""
        self._since = None

    def until(self, now: float) -> float:
        """When the delay that goes on, or begins ``now``, has to end; at once if not after now."""
        if self._since is None:
            self._since = now
        return min(self._since + LONGEST_DELAY, self._starts.first()[0])
