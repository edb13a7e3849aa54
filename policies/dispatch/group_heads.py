"""The first waiting tasks of each group, rated, and kept while they wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from delen.core.dispatch import Group, Key, ModelView, Task
from policies.dispatch.marginal_value import MarginalValue, Step

_LOOK = 2
"""So many of each group may lead a batch, and stand for the pressure of all."""

_BEHIND = 1000

Rank = int
"""The priority, and so much more if the tenant has used more than its share."""

Order = tuple[Rank, float, float, int]
"""Rank, minus worth, deadline, id; the least is served first."""


@dataclass(slots=True, eq=False)
class Candidate:
    """A waiting task of ``front``. ``gain`` is its worth in a time of ``full``, inf if it cannot be
    answered yet. That much it ``surely_pays``, or nothing if it has a cap of energy."""

    order: Order
    rank: Rank
    priority: int
    deadline: float
    due: float
    gain: float
    surely_pays: float
    task: Task
    front: GroupHead

    def pays(self, price: float) -> bool:
        """Whether going on is worth ``price``, and inside the task's cap of energy."""
        if 0 < price >= self.gain:
            return False
        return self.gain == inf or is_affordable(self.task, self.front.worth.figures)

    def needs(self) -> float:
        """Seconds until it has what it cannot be answered without, or until its next exit."""
        task, worth = self.task, self.front.worth
        if not task.floor:
            return self.front.step.late
        return worth.late_shares[task.segment][task.last] * worth.slowest


@dataclass(slots=True, eq=False)
class GroupHead:
    """What is known of ``group``, in which tasks of ``segment`` wait, since its ``changes``.

    ``size`` tasks wait. Of the ``first`` of them ``best`` is served first, as ``order`` says; the
    earliest is ``due`` then, and each ``surely_pays`` so much.
    """

    group: Group
    worth: MarginalValue
    segment: int
    changes: int = -1
    size: int = 0
    first: Sequence[Candidate] = ()
    step: Step = field(init=False)
    best: Candidate = field(init=False)
    order: Order = field(init=False)
    due: float = field(init=False)
    surely_pays: float = field(init=False)

    def __post_init__(self) -> None:
        self.step = self.worth.steps[self.segment]

    def show(self, first: Sequence[Candidate]) -> None:
        """Let ``first``, one or two, stand for all."""
        one, other = first[0], first[-1]
        self.first = first
        self.best = best = one if one.order <= other.order else other
        self.order = best.order
        self.due = one.due if one.due <= other.due else other.due
        pays, others = one.surely_pays, other.surely_pays
        self.surely_pays = pays if pays <= others else others

    def only(self, first: Sequence[Candidate]) -> GroupHead:
        """As if ``first``, some of its own, were all that may lead."""
        front = GroupHead(self.group, self.worth, self.segment, self.changes, self.size)
        front.show(first)
        return front

    def presses(self, left: float) -> float:
        """Seconds of the segment over the seconds ``left`` to a task's deadline, at most 1."""
        seconds, longest = self.step.seconds, self.worth.horizon
        if left > longest:
            return seconds / longest
        return seconds / left if left > seconds else 1.0

    def pressure(self, now: float, rank: Rank) -> float:
        """Of all its tasks up to ``rank``: those beyond the first press as the last of these."""
        pressure = share = 0.0
        for one in self.first:
            if one.rank > rank:
                return pressure
            share = self.presses(one.deadline - now)
            pressure += share
        beyond = self.size - len(self.first)
        if beyond and rank_of(self.group.last) <= rank:
            pressure += share * beyond
        return pressure


class GroupHeads:
    """Keeps what is known of each model, of the first tasks of each group, and of the tasks that
    were looked at while they wait."""

    def __init__(self) -> None:
        self._worths: dict[str, MarginalValue] = {}
        self._fronts: dict[Group, GroupHead] = {}
        self._known: dict[Task, Candidate] = {}

    def of(self, waiting: Mapping[Key, Group], figures: Mapping[str, ModelView]) -> list[GroupHead]:
        """The fronts of all groups of ``waiting``."""
        fronts = []
        known = self._fronts
        for group in waiting.values():
            front = known.get(group)
            if front is None:
                model, segment = group.key
                worth = self.worth(model, figures)
                front = known[group] = GroupHead(group, worth, segment)
            if front.changes != group.changes:
                self._look(front)
            fronts.append(front)
        return fronts

    def _look(self, front: GroupHead) -> None:
        group = front.group
        first = []
        for task in group.first(_LOOK):
            first.append(self.rated(task, front))
        if first != front.first:
            front.show(first)
        front.size = len(group)
        front.changes = group.changes

    def rated(self, task: Task, front: GroupHead) -> Candidate:
        """``task`` as a candidate, anew where the group or the priority it waits with changed."""
        one = self._known.get(task)
        if one is None or one.front is not front or one.priority != task.priority:
            return self._rate(task, front)
        return one

    def _rate(self, task: Task, front: GroupHead) -> Candidate:
        worth, rank, due = front.worth, rank_of(task), task.due
        gain, is_optional = worth.of(task), task.exit >= 0 and not task.floor
        deadline = due if is_optional else task.deadline
        order = (rank, -gain / worth.full, deadline, task.id)
        if not is_optional:
            gain = inf
        pays = -inf if is_optional and task.joules_left < inf else gain
        one = Candidate(order, rank, task.priority, deadline, due, gain, pays, task, front)
        self._known[task] = one
        return one

    def forget(self, task: Task) -> None:
        """``task`` has ended."""
        self._known.pop(task, None)

    def worth(self, model: str, figures: Mapping[str, ModelView]) -> MarginalValue:
        """That of ``model``, once what is known of models follows ``figures``."""
        worth = self._worths.get(model)
        if worth is None:
            worth = self._worths[model] = MarginalValue(figures[model])
        return worth

    def renew(self, model: str) -> None:
        """Take in what ``model`` takes now."""
        worth = self._worths.get(model)
        if worth is not None:
            worth.renew()

    def follow(self, figures: Mapping[str, ModelView]) -> None:
        """Forget models that are no longer as they were, and take in what the others' take now."""
        gone = []
        for name, worth in self._worths.items():
            if name not in figures or figures[name] is not worth.figures:
                gone.append(name)
            elif worth.slowdown_factor != worth.figures.slowdown_factor:
                worth.renew()
        for name in gone:
            worth = self._worths.pop(name)
            self._fronts = {
                group: front for group, front in self._fronts.items() if front.worth is not worth
            }


def is_affordable(task: Task, figures: ModelView) -> bool:
    """Whether the next segment is inside the task's cap of energy."""
    left = task.joules_left
    if left == inf:
        return True
    joules = figures.joules(task.segment, task.segment, 1)
    return joules is not None and joules <= left


def rank_of(task: Task) -> Rank:
    return _BEHIND * task.behind + task.priority
