"""The batches that run now, at most one a lane: their progress, and whether one more pays."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import exp, inf

from delen.core.dispatch import Key, Task
from delen.profile.interference import ALONE, Interference
from delen.scheduler.model_view import ScheduledModel

_LEAST_GAIN = 1.05
"""The factor by which one more lane has to raise the work that is done."""


_MEMORY = 2.0
"""Seconds after which a moment counts e times less in the utilisation."""


@dataclass(slots=True, eq=False)
class Batch:
    """Tasks that run one segment together from ``began``; ``predicted`` seconds are typical.

    It has no tasks if the driver runs the segment for itself. When the last batch started or
    ended, ``alone`` were the typical seconds left of it, if no other lane is busy. They are
    ``upper_factor`` times as long at the quantile that plans use, and ``interference`` says how
    much longer beside others. ``due`` are the times by which it has to end for its tasks,
    ascending; ``spent[k]`` are the seconds that it ran until then beside k others.
    """

    key: Key
    tasks: tuple[Task, ...]
    began: float = -inf
    predicted: float = 0.0
    alone: float = 0.0
    spent: list[float] = field(default_factory=list)
    upper_factor: float = 1.0
    interference: Interference = ALONE
    due: tuple[float, ...] = ()


class Lanes:
    """``count`` batches can run at once. Times may not fall."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"a device needs at least one lane, not {count}")
        self.count = count
        self.free = count
        self._running: list[Batch] = []
        self._at = -inf
        """When the last batch started or ended."""
        self._used = 0.0
        """The utilisation then."""

    @property
    def busy(self) -> int:
        return len(self._running)

    @property
    def idle(self) -> bool:
        return not self._running

    def start(self, now: float, key: Key, tasks: tuple[Task, ...], view: ScheduledModel) -> Batch:
        """Take a lane for ``tasks``; without any, for one sample of the driver's own."""
        batch = Batch(key, tasks)
        self.advance(now)
        self._begin(now, batch, view)
        self._running.append(batch)
        self.free -= 1
        return batch

    def go_on(self, now: float, batch: Batch, key: Key, view: ScheduledModel) -> None:
        """As ``end`` and ``start`` of the tasks of ``batch``, which then is of ``key``."""
        self.advance(now)
        batch.key = key
        self._begin(now, batch, view)

    def _begin(self, now: float, batch: Batch, view: ScheduledModel) -> None:
        segment, size = batch.key.segment, len(batch.tasks) or 1
        batch.began = now
        batch.predicted = typical = view.typical(segment, segment, size)
        batch.alone = typical / view.slowdown_factor
        batch.spent = [0.0] * self.count
        if self.count > 1:
            batch.upper_factor = view.latency_upper(segment, segment, size) / typical
            batch.interference = view.interference
            batch.due = _due(batch.tasks, view)

    def end(self, now: float, batch: Batch) -> None:
        """Free the lane of ``batch``; ValueError if it does not run."""
        self.advance(now)
        self._running.remove(batch)
        self.free += 1

    def is_running(self, batch: Batch) -> bool:
        return batch in self._running

    def opens(self, now: float) -> bool:
        """Whether a batch may start now: no lane is busy; or one is free, the device would do
        more, and no running batch would miss a deadline that it keeps without."""
        running = self._running
        if not running:
            return True
        if not self.free:
            return False
        others, passed = len(running), now - self._at
        for batch in running:
            before, beside = batch.interference.at(others - 1), batch.interference.at(others)
            if (others + 1) / beside < _LEAST_GAIN * others / before:
                return False
            if batch.due:
                left = max(0.0, batch.alone - passed / before) * batch.upper_factor
                first_kept = bisect_left(batch.due, now + left * before)
                if first_kept < len(batch.due) and batch.due[first_kept] < now + left * beside:
                    return False
        return True

    def wait(self, now: float) -> float:
        """Seconds until a batch may start."""
        return 0.0 if self.opens(now) else self.next_end(now) - now

    def next_end(self, now: float) -> float:
        """When the first running batch is predicted to end, ``now`` if that has passed."""
        running = self._running
        if len(running) == 1:
            left = running[0].alone
        else:
            others = len(running) - 1
            left = min([batch.alone * batch.interference.at(others) for batch in running])
        end = self._at + left
        return end if end > now else now

    def utilisation(self, now: float) -> float:
        """The share of all lanes that was busy in the last seconds, of which later ones count
        more."""
        share = len(self._running) / self.count
        return share + (self._used - share) * exp((self._at - now) / _MEMORY)

    def advance(self, now: float) -> None:
        """Advance the running batches to ``now``."""
        if now == self._at:
            return
        running = self._running
        share = len(running) / self.count
        self._used = share + (self._used - share) * exp((self._at - now) / _MEMORY)
        seconds, self._at = now - self._at, now
        others = len(running) - 1
        for batch in running:
            batch.spent[others] += seconds
            batch.alone -= seconds / batch.interference.at(others)


def _due(tasks: Iterable[Task], view: ScheduledModel) -> tuple[float, ...]:
    """When a batch of ``tasks`` has to end for each that has a deadline, ascending; for a task
    with a floor, early enough for the rest of its plan."""
    due = []
    for task in tasks:
        if task.deadline < inf:
            rest = 0.0
            if task.floor and task.segment < task.last:
                rest = view.latency_upper(task.segment + 1, task.last, 1)
            due.append(task.deadline - rest)
    return tuple(sorted(due))
