"""The default: the most expected accuracy for the time there is, and no bound broken for it.

While everything that waits can run its whole plan in time, nothing has to be left out, and the
earliest deadline goes first. This is checked while only a few tasks wait. Otherwise:

Imprecise computation (Liu et al., "Algorithms for scheduling imprecise computations", 1991): what
a task cannot be answered without is mandatory (its first exit, or the whole plan that keeps its
floor), what makes its answer better is optional. Every task has a marginal value, accuracy per
second (marginal_value.py), and three rules follow from it.

1. The task of highest marginal value leads a batch; but first one of lower value that would
   otherwise miss its deadline, if all of the other's group keep theirs meanwhile. Mates join in
   order of rank while no deadline is at risk, unless a position in the batch costs more than what
   waits in other groups is worth. A batch is no slower than one by one, and those behind their
   share join while it takes no longer than the whole network takes one.
2. Time has a price, ``(0.05 * pressure - 0.005) / full``: the pressure is the sum over the other
   waiting tasks of seconds of their next segment over seconds to their deadlines, and full is the
   time of the whole network. A task with an answer is answered if its way on is worth less. The
   price is not above 0 while little waits, so nothing is cut then.
3. A task that cannot reach its next exit in time even alone is answered, or refused if it has no
   answer, before it takes time from others. If nobody else waits, one that typically still gets an
   answer in time may try.

Tasks of a lower priority, and those of tenants that have used more than their share, come after
all others and put no pressure on them. No task with an answer goes on beyond its energy cap, or,
without a deadline, after its patience has passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from operator import attrgetter

from delen.core.dispatch import Group, Key, ModelView, PolicyCapabilities, Ran, Task, Turn
from policies.dispatch.batching import join, most_in_time
from policies.dispatch.group_heads import (
    Candidate,
    GroupHead,
    GroupHeads,
    Order,
    Rank,
    is_affordable,
)

_PER_PRESSURE = 0.05
_FREE = 0.005
_FEW = 8
"""Up to how many waiting tasks it is checked whether all can run their whole plans."""

_USUAL = 8
"""The largest batch that others are assumed to wait for."""

_SURELY = 1.5

_order = attrgetter("order")
_NOBODY: Order = (1 << 30, inf, inf, 0)


class _Prices:
    """The prices of the time of the whole network by rank: tasks of a rank and those before press.

    No price is above ``highest``, the price if all of a group were due with the first of it. The
    price of a rank is computed only if that is too high for a candidate.
    """

    __slots__ = ("_found", "_heads", "_now", "highest")

    def __init__(self, now: float, heads: Sequence[GroupHead]) -> None:
        pressure = 0.0
        for head in heads:
            pressure += head.size * head.presses(head.due - now)
        self.highest = _PER_PRESSURE * pressure - _FREE
        self._now = now
        self._heads = heads
        self._found: dict[Rank, float] = {}

    def of(self, one: Candidate) -> float:
        """The price for ``one``; or the highest, if ``one`` is worth that."""
        rank = one.rank
        if one.gain > self.highest:
            return self.highest
        price = self._found.get(rank)
        if price is None:
            pressure = sum([head.pressure(self._now, rank) for head in self._heads])
            price = self._found[rank] = _PER_PRESSURE * pressure - _FREE
        return price


class Value:
    """Keeps what it has computed of models, groups and tasks (``GroupHeads``)."""

    name = "value"
    capabilities = PolicyCapabilities()

    def __init__(self) -> None:
        self._heads = GroupHeads()

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        self._heads.follow(models)
        calm = self._while_all_can_be_kept(now, waiting, models)
        if calm is not None:
            return calm
        heads = self._heads.of(waiting, models)
        prices = _Prices(now, heads)
        ends: list[Task] = []
        hopes: list[Candidate] = []
        ready = _who_goes_on(now, heads, prices, ends, hopes)
        run: Sequence[Task] = ()
        if ready:
            run = self._batch(now, _first(now, ready), ready, prices, ends)
        elif hopes:
            hope = min(hopes, key=_order).task
            ends.remove(hope)
            run = (hope,)
        if not ends:
            return Turn(run)
        return Turn(
            run,
            answer=[task for task in ends if task.exit >= 0],
            refuse=[task for task in ends if task.exit < 0],
        )

    def _while_all_can_be_kept(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn | None:
        """The task of the earliest deadline and those that may join it, if few wait and all can run
        their whole plans in time, one by one; else None. Shares do not matter then."""
        groups, count = waiting.values(), 0
        for group in groups:
            count += len(group)
            if count > _FEW:
                return None
        few = [(task, group) for group in groups for task in group]
        if len(few) > 1:
            few.sort(key=_urgency)
        start = now
        for task, _ in few:
            end = self._end_in_time(start, task, models)
            if end is None:
                return None
            start = end
        lead, group = few[0]
        return Turn(join(lead, group, now, models[lead.model]) if len(group) > 1 else (lead,))

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        """Whether ``choose`` would run ``task`` now if it alone waited: sure where its plan could
        end in time if all took half as long again, else as ``choose`` sees it."""
        if task.joules_left == inf:
            upper = models[task.model].latency_upper(task.segment, task.last, 1)
            if now + _SURELY * upper <= task.deadline:
                return True
        self._heads.follow(models)
        return self._end_in_time(now, task, models) is not None

    def _end_in_time(
        self, start: float, task: Task, models: Mapping[str, ModelView]
    ) -> float | None:
        """When ``task`` typically ends if its whole plan runs from ``start`` on. None if that may
        be too late, or is beyond its energy cap."""
        values = self._heads.values_of(task.model, models)
        if task.joules_left < inf and not (task.mandatory or is_affordable(task, values.view)):
            return None
        segment, last = task.segment, task.last
        if start + values.latency_upper_shares[segment][last] * values.slowest > task.deadline:
            return None
        return start + values.shares[segment][last] * values.full

    def _batch(
        self,
        now: float,
        lead: Candidate,
        ready: Sequence[GroupHead],
        prices: _Prices,
        ends: list[Task],
    ) -> Sequence[Task]:
        """The batch of ``lead``, one of the first that are ``ready``, in order. Adds the tasks that
        do not go on to ``ends``."""
        head = lead.head
        group, values, segment = head.group, head.values, head.segment
        most = values.most(segment)
        if most == 1 or head.size == 1:
            return (lead.task,)
        rivals = ready[1:] if ready[0].group is group else ready
        lowest, bar, _, _ = rivals[0].order if rivals else _NOBODY
        if head.first[-1].rank > lowest:
            return (lead.task,)
        mates = group.first(most)
        bar *= values.position_cost(segment, len(mates))
        batch = [lead.task]
        soonest = now + head.step.latency_upper
        for task in mates:
            if task is lead.task or task in ends:
                continue
            mate = self._heads.rated(task, head)
            rank = mate.rank
            if rank > lowest or (task.behind and len(batch) >= values.most(segment, behind=True)):
                break
            if mate.deadline < soonest or (
                mate.surely_pays <= prices.highest and not mate.pays(prices.of(mate))
            ):
                ends.append(task)
            elif rank < lowest or mate.order[1] <= bar:
                batch.append(task)
        if len(batch) == 1:
            return batch
        return batch[: most_in_time(now, batch, values.view)]

    def ran(self, now: float, ran: Ran) -> None:
        """Nothing to learn: costs are read where they are needed."""

    def ended(self, now: float, task: Task) -> None:
        self._heads.forget(task)


def _urgency(waiting: tuple[Task, Group]) -> tuple[int, float, float, int]:
    task, _ = waiting
    return task.priority, task.due, task.arrived, task.id


def _who_goes_on(
    now: float,
    heads: Sequence[GroupHead],
    prices: _Prices,
    ends: list[Task],
    hopes: list[Candidate],
) -> Sequence[GroupHead]:
    """The heads, in order, without the tasks that get no further in time or do not pay. It adds
    these to ``ends``, and those that typically still get an answer also to ``hopes``."""
    highest = prices.highest
    doubtful = [
        head
        for head in heads
        if head.due < now + head.step.latency_upper or head.surely_pays <= highest
    ]
    if not doubtful:
        return sorted(heads, key=_order)
    ready = [head for head in heads if head not in doubtful]
    for head in doubtful:
        earliest, seconds = now + head.step.latency_upper, head.step.seconds
        leads = []
        for one in head.first:
            if one.deadline < earliest:
                ends.append(one.task)
                if one.task.exit < 0 and one.deadline - now >= seconds:
                    hopes.append(one)
            elif one.surely_pays > highest or _pays_for_itself(now, one, prices):
                leads.append(one)
            else:
                ends.append(one.task)
        if leads:
            ready.append(head if len(leads) == len(head.first) else head.only(leads))
    ready.sort(key=_order)
    return ready


def _pays_for_itself(now: float, one: Candidate, prices: _Prices) -> bool:
    """Whether going on pays for ``one``, which need not pay for its own pressure."""
    price = prices.of(one)
    if one.surely_pays > price:
        return True
    if 0 < price >= one.gain:
        price -= _PER_PRESSURE * one.head.presses(one.deadline - now)
    return one.pays(price)


def _first(now: float, ready: Sequence[GroupHead]) -> Candidate:
    """The first candidate, or one whose patience has passed, or one that would miss its deadline
    behind the first, if all of the first one's group can wait."""
    head = ready[0]
    first, values, segment = head.best, head.values, head.segment
    size = head.size if head.size < values.largest else values.largest
    free = now + size * head.step.seconds
    hurried = [
        one
        for head in ready
        if head.due < free + head.values.slowest
        for one in head.first
        if one.rank == first.rank
    ]
    if not hurried:
        return first
    overdue = [one for one in hurried if one.due <= now]
    if overdue:
        return min(overdue, key=lambda one: (one.due, one.order))
    view = values.view
    until = now + view.typical(segment, segment, min(size, _USUAL))
    end = first.task.last if first.task.floor else segment
    spare = first.deadline - now - view.latency_upper(segment, end, size)
    endangered = [
        one
        for one in hurried
        if one.head is not first.head
        and now + one.needs() <= one.deadline < until + one.needs()
        and one.head.step.seconds <= spare
    ]
    return min(endangered, key=_order) if endangered else first
