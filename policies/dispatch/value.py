"""The default: the earliest deadline first, among what is worth its time.

Of each task the next *part* is looked at (``heads.py``). In imprecise computation (Liu et al.,
1991) some parts are mandatory, and the others make answers better.

1. While the whole plans of all that waits take little of the time to their deadlines, nothing is
   left out. Otherwise:
2. What cannot reach its next exit in the typical time, or cannot afford it, ends now.
3. Time has a price: what the others press, each with the seconds of its segment over those until it
   is due. An optional part that is not worth ``_PRICE`` times that ends now.
4. What is left is planned by when it is due. Where a deadline breaks, the least valuable part up to
   it is put off: behind its tenant's share, then of lower priority, then of less worth. That is the
   greedy of the upper bound's fluid, on what waits.
5. The first that is not put off leads, of those within their shares if any waits.
6. Mates join while the batch is no slower than one by one, ends within the slack of other groups,
   and keeps the limits of its members at the quantile of plans. Those behind their share join while
   it takes no longer than the whole network takes one, and the whole plans of the others can wait.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from math import inf
from operator import attrgetter

from delen.core.dispatch import Group, Key, ModelView, NoFeedback, PolicyCapabilities, Task, Turn
from policies.dispatch.heads import Head, Heads, Part

_PRICE = 0.2
_ROOM = 0.8
"""Nothing is left out while whole plans take up to this part of the time to deadlines."""

_end = attrgetter("end")


class _Prices:
    """What time costs each optional part; ``highest`` is the cost where everything presses. Nothing
    costs anything while there is ``room``."""

    def __init__(self, now: float, heads: Sequence[Head], room: bool) -> None:
        self._now, self._heads = now, heads
        self._found: dict[tuple[bool, bool], float] = {}
        self.highest = 0.0 if room else _PRICE * self._pressure(True, True)

    def pays(self, part: Part) -> bool:
        """Whether ``part`` goes on: it has to, or is worth what it costs and can be afforded."""
        task = part.task
        if task.mandatory:
            return True
        if 0 < self.highest >= part.worth:
            kind = part.behind, task.deadline < inf
            pressure = self._found.get(kind)
            if pressure is None:
                pressure = self._found[kind] = self._pressure(*kind)
            if task.deadline < inf:
                pressure -= part.head.press(part.due - self._now)
            if 0 < _PRICE * pressure >= part.worth:
                return False
        return _is_affordable(task, part.head.view)

    def _pressure(self, behind: bool, timed: bool) -> float:
        """How much all press for time on a task that is ``behind``, or only those within their
        shares; on one without a deadline, which is not ``timed``, only those that have one."""
        now, pressure = self._now, 0.0
        for head in self._heads:
            first, last, count = head.parts[0], head.parts[-1], head.size if behind else head.inside
            if count and (timed or first.task.deadline < inf):
                pressure += head.press(first.due - now)
            if count > 1 and (timed or last.task.deadline < inf):
                pressure += head.press(last.due - now) * (count - 1)
        return pressure


class Value(NoFeedback):
    """Keeps the heads of groups."""

    name = "value"
    capabilities = PolicyCapabilities()

    def __init__(self) -> None:
        self._heads = Heads()

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        heads = self._heads.of(waiting, models)
        room = _has_room(now, heads)
        prices, ends = _Prices(now, heads, room), list[Task]()
        if room and min([head.sure for head in heads]) > -inf:
            lead = min([head.parts[0] for head in heads])
            run = _batch(now, lead, _wait_of_others(now, lead.head, heads), inf, prices, ends)
        else:
            ready = _without_ends(now, heads, prices, ends)
            run = _first_of(now, ready, prices, ends) if ready else ()
        if not ends:
            return Turn(run)
        return Turn(run, [t for t in ends if t.exit >= 0], [t for t in ends if t.exit < 0])

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        """Whether ``choose`` would run ``task`` now if it alone waited: nobody presses then."""
        view, segment = models[task.model], task.segment
        if now + view.typical(segment, segment, 1) > task.deadline:
            return False
        return task.mandatory or _is_affordable(task, view)


def _has_room(now: float, heads: Sequence[Head]) -> bool:
    """Whether all whole plans, one by one, end well before each group's earliest deadline."""
    seconds = 0.0
    for head in sorted(heads, key=_end):
        seconds += head.whole * head.costs.full
        if seconds > _ROOM * (head.end - now):
            return False
    return True


def _wait_of_others(now: float, lead: Head, heads: Sequence[Head]) -> float:
    """For how many seconds the whole plans of all groups but that of the ``lead`` can wait."""
    seconds, end = 0.0, inf
    for head in heads:
        if head is not lead:
            seconds += head.whole * head.costs.full
            if head.end < end:
                end = head.end
    return end - now - seconds


def _without_ends(
    now: float, heads: Sequence[Head], prices: _Prices, ends: list[Task]
) -> list[Part]:
    """The parts that go on, in order. The other tasks are added to ``ends``."""
    ready: list[Part] = []
    for head in heads:
        earliest = now + head.seconds
        if head.end >= earliest and head.sure > prices.highest:
            ready += head.parts
            continue
        for part in head.parts:
            if part.task.deadline < earliest or not prices.pays(part):
                ends.append(part.task)
            else:
                ready.append(part)
    ready.sort()
    return ready


def _first_of(
    now: float, ready: Sequence[Part], prices: _Prices, ends: list[Task]
) -> Sequence[Task]:
    """The first of ``ready`` that is not put off, of those within their shares if there are any,
    and its mates."""
    slack, behind = _slack(now, ready), ready[0].behind
    kept = ready if slack >= 0 else _kept(now, ready)
    if kept and kept[0].behind == behind:
        lead = kept[0]
    else:
        within = [part for part in ready if part.behind == behind]
        lead = max(within, key=lambda part: part.value(now))
    head, spare = lead.head, inf
    if head.takes(min(head.most, head.size)) > slack:
        slack = _slack(now, [part for part in kept if part.head is not head])
    if not behind and head.group.last.behind:
        spare = _spare(now, head, ready) if len(kept) == len(ready) else -inf
    return _batch(now, lead, slack, spare, prices, ends)


def _kept(now: float, ready: Sequence[Part]) -> Sequence[Part]:
    """Those of ``ready`` that are not put off."""
    end, put_off = now, set()
    added: list[tuple[tuple[bool, int, float], float, int, Part]] = []
    for part in ready:
        end += part.seconds
        heappush(added, (part.value(now), -part.due, -part.id, part))
        while end > part.task.deadline and added:
            least = heappop(added)[3]
            end -= least.seconds
            put_off.add(least.id)
    return [part for part in ready if part.id not in put_off]


def _slack(now: float, parts: Sequence[Part]) -> float:
    """For how many seconds ``parts``, in order, can wait."""
    end, slack = now, inf
    for part in parts:
        end += part.seconds
        left = part.task.deadline - end
        if left < slack:
            slack = left
    return slack


def _spare(now: float, lead: Head, ready: Sequence[Part]) -> float:
    """For how many seconds the whole plans of all within their shares can wait for mates of the
    ``lead``: not at all if in other groups more wait than are looked at, or one has no deadline."""
    end, spare = now, inf
    for part in ready:
        task, head = part.task, part.head
        if part.behind:
            break
        if head is not lead and (task.deadline == inf or head.inside > len(head.parts)):
            return -inf
        end += head.view.latency_upper(task.segment, task.last, 1)
        spare = min(spare, task.deadline - end)
    return spare


def _batch(
    now: float, lead: Part, slack: float, spare: float, prices: _Prices, ends: list[Task]
) -> Sequence[Task]:
    """``lead`` and its mates. Other groups can wait for ``slack`` seconds, and those within their
    shares for ``spare`` while one behind joins. Mates that do not go on are added to ``ends``."""
    head, first = lead.head, lead.task
    view, segment, most, takes = head.view, head.segment, min(head.most, head.size), head.takes
    if most > 1 and takes(most) > slack:
        most = bisect_right(range(1, most + 1), slack, key=takes)
    if most <= 1:
        return (first,)
    earliest = now + view.latency_upper(segment, segment, 1)
    longest, is_priced = min(head.costs.full, head.seconds + spare), prices.highest > 0
    batch = [first]
    for task in head.group.first(most + len(ends)):
        if len(batch) == most:
            break
        if task is first or task.deadline < earliest or task in ends:
            continue
        if task.behind and takes(len(batch) + 1) > longest:
            break
        if (is_priced or task.joules_left < inf) and not prices.pays(head.part(task)):
            ends.append(task)
        else:
            batch.append(task)
    if not _breaks(now, batch, view):
        return batch
    sizes = range(2, len(batch))
    return batch[: 1 + bisect_left(sizes, True, key=lambda n: _breaks(now, batch[:n], view))]


def _breaks(now: float, batch: Sequence[Task], view: ModelView) -> bool:
    """Whether mates make one reach its next exit too late, or one with a floor the end of its plan,
    which it would reach in time alone."""
    segment, size, upper = batch[0].segment, len(batch), view.latency_upper
    if min([task.deadline for task in batch]) < now + upper(segment, segment, size):
        return size > 1
    floors = [task for task in batch if task.floor and task.deadline < inf]
    return any(
        now + upper(segment, task.last, 1) <= task.deadline < now + upper(segment, task.last, size)
        for task in floors
    )


def _is_affordable(task: Task, view: ModelView) -> bool:
    """Whether the next segment is within the task's energy cap."""
    left = task.joules_left
    if left == inf:
        return True
    joules = view.joules(task.segment, task.segment, 1)
    return joules is not None and joules <= left
