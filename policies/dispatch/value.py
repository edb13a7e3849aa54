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

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from operator import attrgetter

from delen.dispatch import Figures, Group, Key, Manners, Ran, Task, Turn
from policies.dispatch.batching import join, most_in_time
from policies.dispatch.worth import Worth

_PER_PRESSURE = 0.05
_FREE = 0.005
_FEW = 8
"""Up to so many waiting tasks it is found out whether all can run their whole plans."""

_LOOK = 2
"""So many of each group may lead a batch, and stand for the pressure of all."""

_USUAL = 8
"""The batch that others wait for is taken for no larger than this."""

_BEHIND = 1000

Rank = int
"""The priority, and so much more if the tenant has used more than its share."""

_NO_BAR: tuple[Rank, float] = (1 << 30, inf)


@dataclass(slots=True, eq=False)
class _Candidate:
    """A waiting task of ``front``, and its ``order``: rank, minus worth, deadline, id; the least is
    served first. ``gain`` is its worth in a time of ``full``, inf if it cannot be answered yet."""

    order: tuple[Rank, float, float, int]
    rank: Rank
    deadline: float
    due: float
    gain: float
    capped: bool
    task: Task
    front: _Front

    def pays(self, price: float) -> bool:
        """Whether going on is worth ``price``, and inside the task's cap of energy."""
        if 0 < price >= self.gain:
            return False
        return not self.capped or _is_affordable(self.task, self.front.worth.figures)

    def needs(self) -> float:
        """Seconds until it has what it cannot be answered without, or until its next exit."""
        task = self.task
        return self.front.worth.late[task.segment][task.last if task.floor else task.segment]

    def presses(self, now: float) -> float:
        """Seconds of its next segment over seconds to its deadline, at most 1."""
        worth = self.front.worth
        seconds, left = worth.seconds[self.task.segment], self.deadline - now
        return seconds / max(seconds, min(left, worth.horizon))


_order = attrgetter("order")


@dataclass(slots=True, eq=False)
class _Front:
    """What is known of ``group``, in which tasks of ``segment`` wait, since its ``changes``: its
    ``first`` tasks, how many come ``beyond`` these, and the rank of the ``last`` of them."""

    group: Group
    worth: Worth
    segment: int
    changes: int = -1
    first: Sequence[_Candidate] = ()
    beyond: int = 0
    last: Rank = 0


class Value:
    """Keeps what is known of each model, of the first tasks of each group, and of the tasks that
    were looked at while they wait."""

    name = "value"
    manners = Manners()

    def __init__(self) -> None:
        self._worths: dict[str, Worth] = {}
        self._fronts: dict[Key, _Front] = {}
        self._known: dict[Task, _Candidate] = {}

    def choose(
        self, now: float, waiting: Mapping[Key, Group], figures: Mapping[str, Figures]
    ) -> Turn:
        self._follow(figures)
        calm = self._while_all_can_be_kept(now, waiting, figures)
        if calm is not None:
            return calm
        pressure: defaultdict[Rank, float] = defaultdict(float)
        leads: list[_Candidate] = []
        ends: list[Task] = []
        hopes: list[_Candidate] = []
        for key, group in waiting.items():
            front = self._fronts.get(key)
            if front is None or front.changes != group.changes or front.group is not group:
                front = self._look(key, group, figures)
            worth, segment = front.worth, front.segment
            seconds, longest = worth.seconds[segment], worth.horizon
            late = now + worth.late[segment][segment]
            share = 0.0
            for one in front.first:
                deadline = one.deadline
                left = deadline - now
                share = 1.0 if left < seconds else seconds / (left if left < longest else longest)
                pressure[one.rank] += share
                if deadline >= late:
                    leads.append(one)
                    continue
                ends.append(one.task)
                if one.task.exit < 0 and left >= seconds:
                    hopes.append(one)
            if front.beyond:
                pressure[front.last] += share * front.beyond
        prices = _prices(pressure)
        for one in [one for one in leads if one.capped or one.gain <= prices[one.rank]]:
            price = prices[one.rank]
            if 0 < price >= one.gain:
                price -= _PER_PRESSURE * one.presses(now)
            if not one.pays(price):
                ends.append(one.task)
                leads.remove(one)
        run: Sequence[Task] = ()
        if leads:
            slowest = max([worth.slowest for worth in self._worths.values()])
            lead = _first(now, leads, slowest)
            run = self._batch(now, lead, leads, prices, ends)
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
        self, now: float, waiting: Mapping[Key, Group], figures: Mapping[str, Figures]
    ) -> Turn | None:
        """The task of the earliest deadline and who may join it, if few wait and all can run their
        whole plans in time, one by one; else None. It does not matter then who has used more than
        its share."""
        count = 0
        for group in waiting.values():
            count += len(group)
            if count > _FEW:
                return None
        rows: list[tuple[int, float, float, int, float, float, Task]] = []
        for (model, segment), group in waiting.items():
            worth = self._worth(model, figures[model])
            late, through = worth.late[segment], worth.through[segment]
            for task in group:
                if not task.mandatory and not _is_affordable(task, worth.figures):
                    return None
                order = (task.priority, task.due, task.arrived, task.id)
                rows.append((*order, late[task.last], through[task.last], task))
        rows.sort()
        start = now
        for _, _, _, _, needs, takes, task in rows:
            if start + needs > task.deadline:
                return None
            start += takes
        lead = rows[0][-1]
        group = waiting[Key(lead.model, lead.segment)]
        return Turn(join(lead, group, now, figures[lead.model]) if len(group) > 1 else (lead,))

    def _follow(self, figures: Mapping[str, Figures]) -> None:
        """Forget models that are no longer as they were, and take in what the others' take now."""
        gone = []
        for name, worth in self._worths.items():
            if figures.get(name) is not worth.figures:
                gone.append(name)
            elif worth.pace != worth.figures.pace:
                worth.renew()
        for name in gone:
            del self._worths[name]
            self._fronts = {key: self._fronts[key] for key in self._fronts if key.model != name}

    def _worth(self, model: str, figures: Figures) -> Worth:
        worth = self._worths.get(model)
        if worth is None or worth.figures is not figures:
            worth = self._worths[model] = Worth(figures)
        return worth

    def _look(self, key: Key, group: Group, figures: Mapping[str, Figures]) -> _Front:
        front = self._fronts.get(key)
        if front is None or front.group is not group:
            worth = self._worth(key.model, figures[key.model])
            front = self._fronts[key] = _Front(group, worth, key.segment)
        first: list[_Candidate] = []
        for task in group.first(_LOOK):
            first.append(self._rated(task, front))
        front.first = first
        front.beyond = len(group) - len(first)
        front.last = _rank(group.last)
        front.changes = group.changes
        return front

    def _rated(self, task: Task, front: _Front) -> _Candidate:
        """``task`` as a candidate, anew where the group or the rank it waits with changed."""
        one = self._known.get(task)
        if one is None or one.front is not front or one.rank != _rank(task):
            return self._rate(task, front)
        return one

    def _rate(self, task: Task, front: _Front) -> _Candidate:
        worth, rank, due = front.worth, _rank(task), task.due
        gain, is_optional = worth.of(task), task.exit >= 0 and not task.floor
        deadline = due if is_optional else task.deadline
        candidate = self._known[task] = _Candidate(
            (rank, -gain / worth.full, deadline, task.id),
            rank,
            deadline,
            due,
            gain if is_optional else inf,
            is_optional and task.joules_left < inf,
            task,
            front,
        )
        return candidate

    def _batch(
        self,
        now: float,
        lead: _Candidate,
        leads: Sequence[_Candidate],
        prices: Mapping[Rank, float],
        ends: list[Task],
    ) -> Sequence[Task]:
        """The batch of ``lead``, one of the ``leads``. Adds to ``ends`` those that it finds
        not to go on."""
        front = lead.front
        group, worth, segment = front.group, front.worth, front.segment
        most = worth.most(segment)
        head = group.first(most)
        if len(head) == 1:
            return (lead.task,)
        others = [other.order for other in leads if other.front is not front]
        lowest, bar = _NO_BAR
        if others:
            lowest, bar, _, _ = min(others)
            bar *= worth.place(segment, len(head))
        batch = [lead.task]
        soonest = now + worth.late[segment][segment]
        for task in head:
            if task is lead.task or task in ends:
                continue
            mate = self._rated(task, front)
            rank = mate.rank
            if rank > lowest:
                break
            if mate.deadline < soonest or not mate.pays(prices.get(rank, prices[lead.rank])):
                ends.append(task)
            elif rank < lowest or mate.order[1] <= bar:
                batch.append(task)
        if len(batch) == 1:
            return batch
        return batch[: most_in_time(now, batch[:most], worth.figures)]

    def ran(self, now: float, ran: Ran) -> None:
        if ran.key.model in self._worths:
            self._worths[ran.key.model].renew()

    def ended(self, now: float, task: Task) -> None:
        self._known.pop(task, None)


def _is_affordable(task: Task, figures: Figures) -> bool:
    """Whether the next segment is inside the task's cap of energy."""
    left = task.joules_left
    if left == inf:
        return True
    joules = figures.joules(task.segment, task.segment, 1)
    return joules is not None and joules <= left


def _prices(pressure: Mapping[Rank, float]) -> Mapping[Rank, float]:
    """Of the time of the whole network, by rank: each is pressed by its own and those before."""
    total, prices = 0.0, {}
    for rank in sorted(pressure):
        total += pressure[rank]
        prices[rank] = _PER_PRESSURE * total - _FREE
    return prices


def _rank(task: Task) -> Rank:
    return _BEHIND * task.behind + task.priority


def _first(now: float, leads: Sequence[_Candidate], slowest: float) -> _Candidate:
    """The first, or one that has waited for as long as it may, or one that would be lost if it
    waited for it where all its group can wait.

    No task needs more than ``slowest`` seconds alone.
    """
    first = min(leads, key=_order)
    group, worth, segment = first.front.group, first.front.worth, first.front.segment
    size = min(len(group), worth.largest)
    free = now + size * worth.seconds[segment] + slowest
    hurried = [one for one in leads if one.due < free and one.rank == first.rank]
    if not hurried:
        return first
    overdue = [one for one in hurried if one.due <= now]
    if overdue:
        return min(overdue, key=lambda one: (one.due, one.order))
    known = worth.figures
    until = now + known.typical(segment, segment, min(size, _USUAL))
    end = first.task.last if first.task.floor else segment
    spare = first.deadline - now - known.late(segment, end, size)
    lost = [
        one
        for one in hurried
        if one.front is not first.front
        and now + one.needs() <= one.deadline < until + one.needs()
        and one.front.worth.seconds[one.front.segment] <= spare
    ]
    return min(lost, key=_order) if lost else first
