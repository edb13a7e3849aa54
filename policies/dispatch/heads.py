"""The waiting tasks of each group as the default policy looks at them: parts of their plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

from delen.core.bounds import DEFAULT_PRIORITY
from delen.core.dispatch import Group, Key, ModelView, Task

_LOOK = 4
"""So many tasks of each group are looked at; the others count as the last one of them."""

_HORIZON = 10.0
"""No task presses less than one that is due this far ahead, in times of the whole network."""

_STEPS = 256
"""Confidences are distinguished in so many steps."""

_SAME, _DIGITS = 1e-6, 9
"""The first segment's share of all changes by less than this under one profile. Shares are rounded
to so many digits, so that a slowdown changes none of them."""


class Part(NamedTuple):
    """The way of a task to the exit ahead that gains most accuracy a second, or, with a floor, to
    its expected end: its ``share`` of the time of the whole network, and its ``worth``, what it
    gains in that time. Parts are in the order in which tasks lead.

    Without a mandatory part a task has no answer, or breaks its floor; the others are optional. The
    segments to the end of the plan take the share ``rest``. A part surely goes on while time costs
    less than ``sure``.
    """

    behind: bool
    due: float
    id: int
    share: float
    worth: float
    sure: float
    rest: float
    task: Task
    head: Head

    @property
    def seconds(self) -> float:
        return self.share * self.head.costs.full

    def value(self, now: float) -> tuple[bool, int, float]:
        """What is worth least is put off. A task without a deadline can be until it is overdue."""
        is_overdue = self.task.deadline == inf and self.due <= now
        return not self.behind, -self.task.priority, inf if is_overdue else self.worth


class Costs:
    """The whole network of ``view`` takes ``full`` seconds now. A slowdown changes all segments
    alike; if shares have moved, the profile is another one, and so is the ``version``."""

    def __init__(self, view: ModelView) -> None:
        self.view, self.version = view, 0
        self.full = self._share = 0.0
        self._largest = 0
        self.renew()

    def renew(self) -> None:
        """Take in the costs of the moment. Another profile under which the whole takes as long as
        before is seen when that moves."""
        view = self.view
        full, largest = view.typical(0, view.exits - 1, 1), view.max_batch
        if full == self.full and largest == self._largest:
            return
        first, self.full = view.typical(0, 0, 1), full
        if abs(first - self._share * full) > _SAME * full or largest != self._largest:
            self._share, self._largest = first / full, largest
            self.version += 1


class Head:
    """The ``parts`` of the first tasks of a ``group`` in order, as of its ``changes``.

    Their earliest deadline is ``end``, and each goes on while time costs less than ``sure``. The
    plans of all ``size`` tasks take ``whole`` times of the whole network; ``inside`` of them are
    within their shares. The segment takes the ``share`` of the whole network, and no more a task in
    batches of up to ``most``.
    """

    parts: Sequence[Part]
    end: float
    sure: float
    size: int
    inside: int
    whole: float
    share: float
    most: int

    def __init__(self, group: Group, costs: Costs) -> None:
        self.group, self.costs, self.view = group, costs, costs.view
        self.segment, self.changes, self.version = group.key.segment, -1, 0

    def renew(self) -> None:
        """Take in what has changed: the profile, and who comes first."""
        group = self.group
        if self.version != self.costs.version:
            self._follow_profile()
        tasks, size = group.first(_LOOK), len(group)
        if tasks != self._tasks:
            self._read(tasks)
        self.whole = self._whole + self._last_rest * (size - len(tasks))
        self.inside = self._inside if group.last.behind else size
        self.size, self.changes = size, group.changes

    def _follow_profile(self) -> None:
        view, segment, self.version = self.view, self.segment, self.costs.version
        alone, sizes = view.typical(segment, segment, 1), range(2, view.max_batch + 1)
        self.share = alone / self.costs.full
        self.most = max([n for n in sizes if self.takes(n) <= n * alone], default=1)
        self._tasks: Sequence[Task] = ()
        self._known: dict[Task, Part] = {}
        self._ways: dict[tuple[int, float | None], tuple[float, float, float]] = {}

    def _read(self, tasks: Sequence[Task]) -> None:
        known = self._known
        self._known = parts = {task: known.get(task) or self.part(task) for task in tasks}
        self._tasks, self.parts = tasks, sorted(parts.values())
        self._last_rest = parts[tasks[-1]].rest
        self.end = min([task.deadline for task in tasks])
        self.sure, self._whole, self._inside = inf, 0.0, 0
        for part in self.parts:
            self._whole += part.rest
            if part.sure < self.sure:
                self.sure = part.sure
            if not part.behind:
                self._inside += 1

    def part(self, task: Task) -> Part:
        """The part of ``task``, which waits in the group."""
        step = round(task.confidence * _STEPS)
        key = (task.last, task.threshold) if task.floor else (task.last, step)
        way = self._ways.get(key)
        if way is None:
            way = self._ways[key] = self._way(task, step / _STEPS)
        share, worth, rest = way
        sure = inf if task.mandatory else worth if task.joules_left == inf else -inf
        return Part(task.behind, _due(task), task.id, share, worth, sure, rest, task, self)

    def _way(self, task: Task, confidence: float) -> tuple[float, float, float]:
        """The ``share``, ``worth`` and ``rest`` of a part."""
        view, exit, segment, full = self.view, task.exit, task.segment, self.costs.full
        rest = round(view.typical(segment, task.last, 1) / full, _DIGITS)
        if task.floor:
            share = round(view.expected(task) * view.slowdown_factor / full, _DIGITS)
            return share, view.accuracies[task.last] / share, rest
        now = view.accuracy_after(exit, confidence, exit) if exit >= 0 else 0.0
        ways = []
        for ahead in range(segment, task.last + 1):
            share = round(view.typical(segment, ahead, 1) / full, _DIGITS)
            ways.append(((view.accuracy_after(exit, confidence, ahead) - now) / share, -share))
        worth, share = max(ways)
        return -share, worth, rest

    @property
    def seconds(self) -> float:
        """What the segment takes for one task alone."""
        return self.share * self.costs.full

    def takes(self, size: int) -> float:
        """Seconds of the segment on a batch of ``size``."""
        return self.view.typical(self.segment, self.segment, size)

    def press(self, left: float) -> float:
        """How much a task presses for time that is due in ``left`` seconds."""
        full = self.costs.full
        seconds = self.share * full
        return 1.0 if left <= seconds else seconds / min(left, _HORIZON * full)


class Heads:
    """The heads of all groups, kept while their models are there."""

    def __init__(self) -> None:
        self._costs: dict[str, Costs] = {}
        self._heads: dict[Group, Head] = {}

    def of(self, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]) -> list[Head]:
        """The heads of the groups in ``waiting``, at the costs of the moment."""
        for costs in self._follow(models):
            costs.renew()
        known, heads = self._heads, []
        for group in waiting.values():
            head = known.get(group)
            if head is None:
                head = known[group] = Head(group, self._costs_of(group.key.model, models))
            if head.changes != group.changes or head.version != head.costs.version:
                head.renew()
            heads.append(head)
        return heads

    def _follow(self, models: Mapping[str, ModelView]) -> list[Costs]:
        """The costs of the models that are still there; the others are forgotten."""
        known = self._costs
        gone = [name for name, costs in known.items() if models.get(name) is not costs.view]
        for name in gone:
            costs = known.pop(name)
            heads = self._heads.items()
            self._heads = {group: head for group, head in heads if head.costs is not costs}
        return list(known.values())

    def _costs_of(self, model: str, models: Mapping[str, ModelView]) -> Costs:
        costs = self._costs.get(model)
        if costs is None:
            costs = self._costs[model] = Costs(models[model])
        return costs


def _due(task: Task) -> float:
    """When ``task`` is due. One without a deadline is never late, so that its priority says who
    goes first: its patience is in proportion to the number."""
    if task.deadline < inf:
        return task.deadline
    return task.arrived + task.patience * task.priority / DEFAULT_PRIORITY
