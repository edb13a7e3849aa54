"""The default: the most expected accuracy for the time there is, and no bound broken for it.

While all that waits can run its whole plan in time, nothing has to be left out, and the earliest
deadline goes first. This is found out where no more than a few tasks wait. Else:

Imprecise computation (Liu et al., "Algorithms for scheduling imprecise computations", 1991): what
a task cannot be answered without is mandatory (its first exit, or the whole plan that keeps its
floor), what makes its answer better is optional. Every task has a worth, accuracy per second
(worth.py), and three rules follow from it.

1. The task of highest worth leads a batch; but first one of lower worth that would else miss its
   deadline, if all of the other's group keep theirs meanwhile. Mates join in order of rank while
   no deadline is at risk, unless a place costs more than what waits in other groups is worth.
2. Time has a price, ``(0.05 * pressure - 0.005) / full``: the pressure is the sum over the other
   waiting tasks of seconds of their next segment over seconds to their deadlines, full the time of
   the whole network. A task with an answer whose way on is worth less is answered. So nothing is
   cut while the price is not above 0, as little waits, and queues stay short when much does.
3. A task that cannot reach its next exit in time even alone is answered, or refused if it has
   nothing to answer with, before it takes time from others. Where there is nobody to take it from,
   one that typically still gets an answer in time may try.

Tasks of tenants that have used more than their share, and of a lower priority, come after all
others and put no pressure on them. No task with an answer goes on beyond its cap of energy, or,
without a deadline, when it has waited for as long as it may.
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
"""Up to so many waiting tasks it is found out whether all can run their whole plans."""

_USUAL = 8
"""The batch that others wait for is taken for no larger than this."""

_order = attrgetter("order")
_NOBODY: Order = (1 << 30, inf, inf, 0)


class _Prices:
    """Of the time of the whole network, by rank: each is pressed by its own and those before.

    None is above ``highest``, the price if all of a group were due with the first of it. Only where
    that is too high for someone it is worked out what its rank pays.
    """

    __slots__ = ("_found", "_fronts", "_now", "highest")

    def __init__(self, now: float, fronts: Sequence[GroupHead]) -> None:
        pressure = 0.0
        for front in fronts:
            pressure += front.size * front.presses(front.due - now)
        self.highest = _PER_PRESSURE * pressure - _FREE
        self._now = now
        self._fronts = fronts
        self._found: dict[Rank, float] = {}

    def of(self, one: Candidate) -> float:
        """What ``one`` pays; or the highest, where that is not too high for it."""
        rank = one.rank
        if one.gain > self.highest:
            return self.highest
        price = self._found.get(rank)
        if price is None:
            pressure = sum([front.pressure(self._now, rank) for front in self._fronts])
            price = self._found[rank] = _PER_PRESSURE * pressure - _FREE
        return price


class Value:
    """Keeps what it has found out of models, groups and tasks (``GroupHeads``)."""

    name = "value"
    capabilities = PolicyCapabilities()

    def __init__(self) -> None:
        self._fronts = GroupHeads()

    def choose(
        self, now: float, waiting: Mapping[Key, Group], figures: Mapping[str, ModelView]
    ) -> Turn:
        self._fronts.follow(figures)
        calm = self._while_all_can_be_kept(now, waiting, figures)
        if calm is not None:
            return calm
        fronts = self._fronts.of(waiting, figures)
        prices = _Prices(now, fronts)
        ends: list[Task] = []
        hopes: list[Candidate] = []
        ready = _who_goes_on(now, fronts, prices, ends, hopes)
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
        self, now: float, waiting: Mapping[Key, Group], figures: Mapping[str, ModelView]
    ) -> Turn | None:
        """The task of the earliest deadline and who may join it, if few wait and all can run their
        whole plans in time, one by one; else None. It does not matter then who has used more than
        its share."""
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
            worth = self._fronts.worth(task.model, figures)
            if task.joules_left < inf and not (
                task.mandatory or is_affordable(task, worth.figures)
            ):
                return None
            segment, last = task.segment, task.last
            if start + worth.late_shares[segment][last] * worth.slowest > task.deadline:
                return None
            start += worth.shares[segment][last] * worth.full
        lead, group = few[0]
        return Turn(join(lead, group, now, figures[lead.model]) if len(group) > 1 else (lead,))

    def _batch(
        self,
        now: float,
        lead: Candidate,
        ready: Sequence[GroupHead],
        prices: _Prices,
        ends: list[Task],
    ) -> Sequence[Task]:
        """The batch of ``lead``, one of the first that are ``ready``, in order. Adds to ``ends``
        those that it finds not to go on."""
        front = lead.front
        group, worth, segment = front.group, front.worth, front.segment
        most = worth.most(segment)
        if most == 1 or front.size == 1:
            return (lead.task,)
        rivals = ready[1:] if ready[0].group is group else ready
        lowest, bar, _, _ = rivals[0].order if rivals else _NOBODY
        if front.first[-1].rank > lowest:
            return (lead.task,)
        head = group.first(most)
        bar *= worth.place(segment, len(head))
        batch = [lead.task]
        soonest = now + front.step.late
        for task in head:
            if task is lead.task or task in ends:
                continue
            mate = self._fronts.rated(task, front)
            rank = mate.rank
            if rank > lowest:
                break
            if mate.deadline < soonest or (
                mate.surely_pays <= prices.highest and not mate.pays(prices.of(mate))
            ):
                ends.append(task)
            elif rank < lowest or mate.order[1] <= bar:
                batch.append(task)
        if len(batch) == 1:
            return batch
        return batch[: most_in_time(now, batch, worth.figures)]

    def ran(self, now: float, ran: Ran) -> None:
        self._fronts.renew(ran.key.model)

    def ended(self, now: float, task: Task) -> None:
        self._fronts.forget(task)


def _urgency(waiting: tuple[Task, Group]) -> tuple[int, float, float, int]:
    task, _ = waiting
    return task.priority, task.due, task.arrived, task.id


def _who_goes_on(
    now: float,
    fronts: Sequence[GroupHead],
    prices: _Prices,
    ends: list[Task],
    hopes: list[Candidate],
) -> Sequence[GroupHead]:
    """The fronts, in order, without those that get no further in time or do not pay. These it adds
    to ``ends``, and to ``hopes`` who typically still gets an answer."""
    highest = prices.highest
    doubtful = [
        front
        for front in fronts
        if front.due < now + front.step.late or front.surely_pays <= highest
    ]
    if not doubtful:
        return sorted(fronts, key=_order)
    ready = [front for front in fronts if front not in doubtful]
    for front in doubtful:
        late, seconds = now + front.step.late, front.step.seconds
        leads = []
        for one in front.first:
            if one.deadline < late:
                ends.append(one.task)
                if one.task.exit < 0 and one.deadline - now >= seconds:
                    hopes.append(one)
            elif one.surely_pays > highest or _pays_for_itself(now, one, prices):
                leads.append(one)
            else:
                ends.append(one.task)
        if leads:
            ready.append(front if len(leads) == len(front.first) else front.only(leads))
    ready.sort(key=_order)
    return ready


def _pays_for_itself(now: float, one: Candidate, prices: _Prices) -> bool:
    """Whether going on is worth it to ``one``, which need not pay for its own pressure."""
    price = prices.of(one)
    if one.surely_pays > price:
        return True
    if 0 < price >= one.gain:
        price -= _PER_PRESSURE * one.front.presses(one.deadline - now)
    return one.pays(price)


def _first(now: float, ready: Sequence[GroupHead]) -> Candidate:
    """The first, or one that has waited for as long as it may, or one that would be lost if it
    waited for it where all its group can wait."""
    front = ready[0]
    first, worth, segment = front.best, front.worth, front.segment
    size = front.size if front.size < worth.largest else worth.largest
    free = now + size * front.step.seconds
    hurried = [
        one
        for front in ready
        if front.due < free + front.worth.slowest
        for one in front.first
        if one.rank == first.rank
    ]
    if not hurried:
        return first
    overdue = [one for one in hurried if one.due <= now]
    if overdue:
        return min(overdue, key=lambda one: (one.due, one.order))
    known = worth.figures
    until = now + known.typical(segment, segment, min(size, _USUAL))
    end = first.task.last if first.task.floor else segment
    spare = first.deadline - now - known.latency_upper(segment, end, size)
    lost = [
        one
        for one in hurried
        if one.front is not first.front
        and now + one.needs() <= one.deadline < until + one.needs()
        and one.front.step.seconds <= spare
    ]
    return min(lost, key=_order) if lost else first
