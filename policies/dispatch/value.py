"""The default: the earliest deadline first, among what is worth its time.

Of each task the next *part* is looked at: the way to the exit ahead that gains most accuracy a
second. In imprecise computation (Liu et al., 1991) a part without which a task has no answer, or
breaks its floor, is mandatory, and the others are optional.

1. What cannot reach its next exit in the typical time, or cannot afford it, ends now.
2. Time has a price: 0.8 times what the others press, each with the seconds of its segment over
   those until it is due. An optional part that is not worth it ends now.
3. What is left is planned by when it is due. Where a deadline breaks, the least valuable part up to
   it is put off: behind its tenant's share, then of lower priority, then of less worth. That is the
   greedy of the upper bound's fluid, on what waits.
4. The first that is not put off leads, of those within their shares if any waits.
5. Mates join while the batch is no slower than one by one, ends within the slack of other groups,
   and keeps the limits of its members at the quantile of plans. Those behind join if the whole
   plans of all within their shares still end in time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

from delen.core.dispatch import Group, Key, ModelView, NoFeedback, PolicyCapabilities, Task, Turn

_PRICE = 0.8
_LOOK = 4
"""So many tasks of each group are looked at; the others press as the last one of them."""

_HORIZON = 10.0
"""No task presses less than one that is due this far ahead, in times of the whole network."""

_STEPS, _DIGITS, _SAME = 256, 9, 1e-6


class _Part(NamedTuple):
    """The way of a task to the exit ahead that gains most accuracy a second, or, with a floor, to
    its expected end: its ``share`` of the time of the whole network, and its ``worth``, what it
    gains in that time."""

    due: float
    id: int
    share: float
    worth: float
    optional: bool
    task: Task
    head: _Head


class _Head:
    """The ``parts`` of the first tasks of a ``group`` by when they are due, as of its ``changes``.
    Its segment takes ``step`` seconds, the whole network ``full``."""

    def __init__(self, group: Group, view: ModelView) -> None:
        self.group, self.view, (_, self.segment) = group, view, group.key
        self._share, self._largest, self.changes = -1.0, 0, -1
        self._known: dict[Task, _Part] = {}
        self._ways: dict[tuple[int, float | None], tuple[float, float]] = {}

    def renew(self, full: float) -> None:
        """Take in what has changed: costs of the moment, and who comes first. A slowdown changes
        all segments alike; if shares have moved, the profile is another one."""
        view, segment, group = self.view, self.segment, self.group
        self.full, self.step = full, view.typical(segment, segment, 1)
        largest = view.max_batch
        if abs(self.step - self._share * full) > _SAME * full or largest != self._largest:
            self._share, self._largest, self._known, self._ways = self.step / full, largest, {}, {}
            sizes = range(1, largest + 1)
            takes = [view.typical(segment, segment, size) for size in sizes]
            self.most = max(n for n in sizes if takes[n - 1] <= n * takes[0])
        elif self.changes == group.changes:
            return
        known, first, inside, self.end, self.least = self._known, {}, 0, inf, inf
        for task in group.first(_LOOK):
            part = first[task] = known.get(task) or self._part(task)
            if task.deadline < self.end:
                self.end = task.deadline
            if part.optional and part.worth < self.least:
                self.least = part.worth
            if task.joules_left < inf:
                self.least = -inf
            if not task.behind:
                inside += 1
        self._known, self.parts = first, sorted(first.values())
        self.size, self.changes = len(group), group.changes
        self.inside = inside if group.last.behind else self.size

    def _part(self, task: Task) -> _Part:
        step = round(task.confidence * _STEPS)
        key = (task.last, task.threshold) if task.floor else (task.last, step)
        way = self._ways.get(key)
        if way is None:
            way = self._ways[key] = self._way(task, step / _STEPS)
        optional = task.exit >= 0 and not task.floor
        return _Part(task.due, task.id, way[0], way[1], optional, task, self)

    def _way(self, task: Task, confidence: float) -> tuple[float, float]:
        """The share of the part of ``task``, and its worth."""
        view, exit, segment = self.view, task.exit, task.segment
        if task.floor:
            share = round(view.expected(task) * view.slowdown_factor / self.full, _DIGITS)
            return share, view.accuracies[task.last] / share
        now = view.accuracy_after(exit, confidence, exit) if exit >= 0 else 0.0
        ways = []
        for ahead in range(segment, task.last + 1):
            share = round(view.typical(segment, ahead, 1) / self.full, _DIGITS)
            ways.append(((view.accuracy_after(exit, confidence, ahead) - now) / share, -share))
        worth, share = max(ways)
        return -share, worth


class Value(NoFeedback):
    """Keeps the heads of groups."""

    name = "value"
    capabilities = PolicyCapabilities()

    def __init__(self) -> None:
        self._heads: dict[Key, _Head] = {}

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        heads = self._look(waiting, models)
        ends: list[Task] = []
        ready = _without_ends(now, heads, ends)
        run = _batch(now, ready, ends) if ready else ()
        answer, refuse = [t for t in ends if t.exit >= 0], [t for t in ends if t.exit < 0]
        return Turn(run, answer, refuse)

    def _look(
        self, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Sequence[_Head]:
        heads, fulls = [], dict[str, float]()
        for key, group in waiting.items():
            head, view = self._heads.get(key), models[key.model]
            full = fulls.get(key.model)
            if full is None:
                full = fulls[key.model] = view.typical(0, view.exits - 1, 1)
            if head is None or head.group is not group or head.view is not view:
                known = self._heads.items()
                self._heads = {k: h for k, h in known if models.get(k.model) is h.view}
                head = self._heads[key] = _Head(group, view)
            head.renew(full)
            heads.append(head)
        return heads

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        """Whether ``choose`` would run ``task`` now if it alone waited: nobody presses then."""
        view, segment = models[task.model], task.segment
        if now + view.typical(segment, segment, 1) > task.deadline:
            return False
        return task.mandatory or _is_affordable(task, view)


def _without_ends(now: float, heads: Sequence[_Head], ends: list[Task]) -> list[_Part]:
    """The parts that go on, by when they are due. The other tasks are added to ``ends``."""
    highest = _PRICE * _pressure(now, heads, True, True)
    pressures: dict[tuple[bool, bool], float] = {}
    ready: list[_Part] = []
    for head in heads:
        earliest = now + head.step
        if head.end >= earliest and head.least > highest:
            ready += head.parts
            continue
        for part in head.parts:
            task, price = part.task, 0.0
            if part.optional and part.worth <= highest:
                kind = behind, timed = task.behind, task.deadline < inf
                if kind not in pressures:
                    pressures[kind] = _pressure(now, heads, behind, timed)
                own = _press(head, part.due - now) if timed else 0.0
                price = _PRICE * (pressures[kind] - own)
            if (
                task.deadline < earliest
                or 0 < price >= part.worth
                or (part.optional and not _is_affordable(task, head.view))
            ):
                ends.append(task)
            else:
                ready.append(part)
    ready.sort()
    return ready


def _pressure(now: float, heads: Sequence[_Head], behind: bool, timed: bool) -> float:
    """How much all press for time on a task that is ``behind``, or only those within their shares;
    on one without a deadline, which is not ``timed``, only those press that have one."""
    pressure = 0.0
    for head in heads:
        first, last, count = head.parts[0], head.parts[-1], head.size if behind else head.inside
        if count and (timed or first.task.deadline < inf):
            pressure += _press(head, first.due - now)
        if count > 1 and (timed or last.task.deadline < inf):
            pressure += _press(head, last.due - now) * (count - 1)
    return pressure


def _press(head: _Head, left: float) -> float:
    """How much a task of ``head`` presses for time that is due in ``left`` seconds."""
    return head.step / max(head.step, min(left, _HORIZON * head.full))


def _kept(now: float, ready: Sequence[_Part]) -> Sequence[_Part]:
    """Those of ``ready`` that are not put off."""
    end, put_off = now, set()
    added: list[tuple[tuple[bool, int, float], float, int, _Part]] = []
    for part in ready:
        end += part.share * part.head.full
        heappush(added, (_value(now, part), -part.due, -part.id, part))
        while end > part.task.deadline and added:
            least = heappop(added)[3]
            end -= least.share * least.head.full
            put_off.add(least.id)
    return [part for part in ready if part.id not in put_off]


def _value(now: float, part: _Part) -> tuple[bool, int, float]:
    """What is worth least is put off. A task without a deadline can be until it is overdue."""
    task = part.task
    is_overdue = task.deadline == inf and part.due <= now
    return not task.behind, -task.priority, inf if is_overdue else part.worth


def _slack(now: float, parts: Sequence[_Part]) -> float:
    """For how many seconds ``parts``, in order of due, can wait."""
    end, slack = now, inf
    for part in parts:
        end += part.share * part.head.full
        if part.task.deadline - end < slack:
            slack = part.task.deadline - end
    return slack


def _spare(now: float, lead: _Head, within: Sequence[_Part]) -> float:
    """For how many seconds the whole plans of all ``within`` their shares can wait for mates of the
    ``lead``: not at all if in other groups more wait than are looked at, or one has no deadline."""
    end, spare = now, inf
    for _, _, _, _, _, task, head in within:
        if head is not lead and (task.deadline == inf or head.inside > _LOOK):
            return -inf
        end += head.view.latency_upper(task.segment, task.last, 1)
        spare = min(spare, task.deadline - end)
    return spare


def _batch(now: float, ready: Sequence[_Part], ends: Sequence[Task]) -> Sequence[Task]:
    """The task that leads, and the mates that join it."""
    slack = _slack(now, ready)
    kept = ready if slack >= 0 else _kept(now, ready)
    within = [part for part in ready if not part.task.behind]
    leads = [part for part in kept if not part.task.behind] if within else kept
    lead = leads[0] if leads else max(within or ready, key=lambda part: _value(now, part))
    head, first = lead.head, lead.task
    view, segment, most = head.view, head.segment, min(head.most, head.size)
    if most == 1:
        return (first,)

    def takes(size: int) -> float:
        return view.typical(segment, segment, size)

    if takes(most) > slack:
        slack = _slack(now, [part for part in kept if part.head is not head])
    most = bisect_right(range(1, most + 1), slack, key=takes) or 1
    earliest, longest = now + view.latency_upper(segment, segment, 1), inf
    if within and head.group.last.behind:
        longest = head.step + (_spare(now, head, within) if len(kept) == len(ready) else -inf)
    batch = [first]
    for task in head.group.first(most + len(ends)):
        if len(batch) == most:
            break
        if task is not first and task.deadline >= earliest and task not in ends:
            if task.behind and takes(len(batch) + 1) > longest:
                break
            batch.append(task)
    sizes = range(2, len(batch) + 1)
    return batch[: 1 + bisect_left(sizes, True, key=lambda n: _breaks(now, batch[:n], view))]


def _breaks(now: float, batch: Sequence[Task], view: ModelView) -> bool:
    """Whether one may reach its next exit too late in the ``batch``, or one with a floor the end of
    its plan, which it would reach in time alone."""
    segment, size, upper = batch[0].segment, len(batch), view.latency_upper
    if min([task.deadline for task in batch]) < now + upper(segment, segment, size):
        return True
    return any(
        now + upper(segment, task.last, 1) <= task.deadline < now + upper(segment, task.last, size)
        for task in batch
        if task.floor
    )


def _is_affordable(task: Task, view: ModelView) -> bool:
    left, joules = task.joules_left, view.joules(task.segment, task.segment, 1)
    return left == inf or (joules is not None and joules <= left)
