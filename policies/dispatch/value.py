"""The default: the most expected accuracy for the time there is, and no bound broken for it.

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
   nothing to answer with, before it takes time from others.

Tasks of a lower priority, and of tenants that have used more than their share, come after all
others and put no pressure on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

from delen.dispatch import Figures, Group, Key, Manners, Ran, Task, Turn
from policies.dispatch.batching import most_in_time
from policies.dispatch.worth import Worth

_PER_PRESSURE = 0.05
_FREE = 0.005
_LOOK = 2
"""So many of each group may lead a batch, and stand for the pressure of all."""

_HORIZON = 100.0
"""The time to the deadline of a task without one, in times of the whole network."""

_USUAL = 8
"""The batch that others wait for is taken for no larger than this."""

Rank = tuple[int, bool]
"""Priority, and whether the tenant has used more than its share."""

_NO_BAR: tuple[Rank, float] = ((1 << 30, True), inf)


class _Candidate(NamedTuple):
    """A waiting task; the least is served first. ``gain`` is its worth in a time of ``full``."""

    rank: Rank
    minus_worth: float
    deadline: float
    id: int
    segment: int
    gain: float
    worth: Worth
    task: Task


class Value:
    """Keeps what is known of each model, and of the tasks looked at while they wait."""

    name = "value"
    manners = Manners()

    def __init__(self) -> None:
        self._worths: dict[str, Worth] = {}
        self._known: dict[int, _Candidate] = {}

    def choose(
        self, now: float, waiting: Mapping[Key, Group], figures: Mapping[str, Figures]
    ) -> Turn:
        pressure: dict[Rank, float] = {}
        leads: list[_Candidate] = []
        optional: list[tuple[_Candidate, float]] = []
        ends: list[Task] = []
        slowest = 0.0
        for (model, segment), group in waiting.items():
            worth = self._worths.get(model)
            if worth is None or worth.figures is not figures[model]:
                worth = self._worths[model] = Worth(figures[model])
            elif worth.pace != worth.figures.pace:
                worth.renew()
            seconds, late = worth.seconds[segment], worth.late[segment][segment]
            longest, share = _HORIZON * worth.full, 0.0
            slowest = max(slowest, worth.late[segment][-1])
            for task in group.first(_LOOK):
                candidate = self._known.get(task.id)
                if candidate is None or candidate.task is not task or candidate.segment != segment:
                    candidate = self._candidate(task, worth)
                left, rank = candidate.deadline - now, candidate.rank
                share = 1.0 if left < seconds else seconds / (left if left < longest else longest)
                pressure[rank] = pressure.get(rank, 0.0) + share
                if left < late:
                    ends.append(task)
                elif candidate.gain == inf:
                    leads.append(candidate)
                else:
                    optional.append((candidate, share))
            beyond = len(group) - _LOOK
            if beyond > 0:
                last = group.last
                rank = (last.priority, last.behind)
                pressure[rank] = pressure.get(rank, 0.0) + share * beyond
        prices = _prices(pressure)
        for candidate, share in optional:
            if _pays(candidate, prices[candidate.rank] - _PER_PRESSURE * share):
                leads.append(candidate)
            else:
                ends.append(candidate.task)
        run: Sequence[Task] = ()
        if leads:
            lead = _first(now, leads, waiting, slowest)
            run = self._batch(now, lead, leads, waiting, prices, ends)
        if not ends:
            return Turn(run)
        return Turn(
            run,
            answer=[task for task in ends if task.exit >= 0],
            refuse=[task for task in ends if task.exit < 0],
        )

    def _candidate(self, task: Task, worth: Worth) -> _Candidate:
        gain = worth.of(task)
        candidate = self._known[task.id] = _Candidate(
            rank=(task.priority, task.behind),
            minus_worth=-gain / worth.full,
            deadline=task.deadline,
            id=task.id,
            segment=task.segment,
            gain=inf if task.exit < 0 or task.floor else gain,
            worth=worth,
            task=task,
        )
        return candidate

    def _batch(
        self,
        now: float,
        lead: _Candidate,
        leads: Sequence[_Candidate],
        waiting: Mapping[Key, Group],
        prices: Mapping[Rank, float],
        ends: list[Task],
    ) -> Sequence[Task]:
        """The batch of ``lead``. Adds to ``ends`` those that it finds not to go on."""
        worth, segment = lead.worth, lead.segment
        most = worth.most(segment)
        head = waiting[Key(lead.task.model, segment)].first(most)
        if len(head) == 1:
            return (lead.task,)
        others = [one for one in leads if one.segment != segment or one.worth is not worth]
        bar: tuple[Rank, float] = _NO_BAR
        if others:
            other = min(others)
            bar = (other.rank, other.minus_worth * worth.place(segment, len(head)))
        batch = [lead.task]
        soonest = now + worth.late[segment][segment]
        for task in head:
            if task is lead.task or task in ends:
                continue
            mate = self._known.get(task.id)
            if mate is None or mate.task is not task or mate.segment != segment:
                mate = self._candidate(task, worth)
            if mate.deadline < soonest or (
                mate.gain != inf and not _pays(mate, prices.get(mate.rank, prices[lead.rank]))
            ):
                ends.append(task)
            elif mate[:2] <= bar:
                batch.append(task)
        return batch[: most_in_time(now, batch[:most], worth.figures)]

    def ran(self, now: float, ran: Ran) -> None:
        if ran.key.model in self._worths:
            self._worths[ran.key.model].renew()

    def ended(self, now: float, task: Task) -> None:
        self._known.pop(task.id, None)


def _prices(pressure: Mapping[Rank, float]) -> Mapping[Rank, float]:
    """Of the time of the whole network, by rank: each is pressed by its own and those before."""
    total, prices = 0.0, {}
    for rank in sorted(pressure):
        total += pressure[rank]
        prices[rank] = _PER_PRESSURE * total - _FREE
    return prices


def _pays(candidate: _Candidate, price: float) -> bool:
    """Whether going on is worth ``price``, and inside the task's cap of energy."""
    if price > 0 and candidate.gain <= price:
        return False
    left = candidate.task.joules_left
    if left == inf:
        return True
    joules = candidate.worth.figures.joules(candidate.segment, candidate.segment, 1)
    return joules is not None and joules <= left


def _first(
    now: float, leads: Sequence[_Candidate], waiting: Mapping[Key, Group], slowest: float
) -> _Candidate:
    """The worthiest, or one that would be lost if it waited for it where all its group can wait.

    No task needs more than ``slowest`` seconds alone.
    """
    first = min(leads)
    worth, segment, known = first.worth, first.segment, first.worth.figures
    size = min(len(waiting[Key(first.task.model, segment)]), known.max_batch)
    free = now + size * worth.seconds[segment] + slowest
    hurried = [one for one in leads if one.deadline < free]
    if not hurried:
        return first
    until = now + known.typical(segment, segment, min(size, _USUAL))
    end = first.task.last if first.task.floor else segment
    spare = first.deadline - now - known.late(segment, end, size)
    lost = [
        one
        for one in hurried
        if one.rank == first.rank
        and (one.segment != segment or one.worth is not worth)
        and now + _needs(one) <= one.deadline < until + _needs(one)
        and one.worth.seconds[one.segment] <= spare
    ]
    return min(lost) if lost else first


def _needs(candidate: _Candidate) -> float:
    """Seconds until a task has what it cannot be answered without, or until its next exit."""
    segment, task = candidate.segment, candidate.task
    return candidate.worth.late[segment][task.last if task.floor else segment]
