"""The first waiting tasks of each group, rated, and kept while they wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from delen.core.dispatch import Group, Key, ModelView, Task
from policies.dispatch.marginal_value import MarginalValue, Step

_LOOK = 2
"""How many tasks of each group may lead a batch, and represent the pressure of all."""

_BEHIND = 1000

Rank = int
"""The priority, plus ``_BEHIND`` if the tenant has used more than its share."""

Order = tuple[Rank, float, float, int]
"""Rank, minus marginal value, deadline, id; the least is served first."""


@dataclass(slots=True, eq=False)
class Candidate:
    """A waiting task of ``head``. ``gain`` is its marginal value in a time of ``full``, inf if it
    cannot be answered yet. It ``surely_pays`` that much, or nothing if it has an energy cap."""

    order: Order
    rank: Rank
    priority: int
    deadline: float
    due: float
    gain: float
    surely_pays: float
    task: Task
    head: GroupHead

    def pays(self, price: float) -> bool:
        """Whether going on is worth ``price``, and within the task's energy cap."""
        if 0 < price >= self.gain:
            return False
        return self.gain == inf or is_affordable(self.task, self.head.values.view)

    def needs(self) -> float:
        """Seconds until it has what it cannot be answered without, or until its next exit."""
        task, values = self.task, self.head.values
        if not task.floor:
            return self.head.step.latency_upper
        return values.latency_upper_shares[task.segment][task.last] * values.slowest


@dataclass(slots=True, eq=False)
class GroupHead:
    """The state of ``group``, in which tasks of ``segment`` wait, as of its ``changes``.

    ``size`` tasks wait. Among the ``first`` of them ``best`` is served first, as ``order`` says;
    the earliest is due at ``due``, and each ``surely_pays`` at least that much.
    """

    group: Group
    values: MarginalValue
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
        self.step = self.values.steps[self.segment]

    def show(self, first: Sequence[Candidate]) -> None:
        """Let ``first``, one or two candidates, represent the group."""
        one, other = first[0], first[-1]
        self.first = first
        self.best = best = one if one.order <= other.order else other
        self.order = best.order
        self.due = one.due if one.due <= other.due else other.due
        pays, others = one.surely_pays, other.surely_pays
        self.surely_pays = pays if pays <= others else others

    def only(self, first: Sequence[Candidate]) -> GroupHead:
        """The same head with only ``first``, some of its own candidates, as leads."""
        head = GroupHead(self.group, self.values, self.segment, self.changes, self.size)
        head.show(first)
        return head

    def presses(self, left: float) -> float:
        """Seconds of the segment over the seconds ``left`` to a task's deadline, at most 1."""
        seconds, longest = self.step.seconds, self.values.horizon
        if left > longest:
            return seconds / longest
        return seconds / left if left > seconds else 1.0

    def pressure(self, now: float, rank: Rank) -> float:
        """The pressure of its tasks up to ``rank``; those after the first press as the last one."""
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
    """Keeps the marginal values of each model, the head of each group, and the candidates that were
    rated, while they wait."""

    def __init__(self) -> None:
        self._values: dict[str, MarginalValue] = {}
        self._heads: dict[Group, GroupHead] = {}
        self._known: dict[Task, Candidate] = {}

    def of(self, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]) -> list[GroupHead]:
        """The heads of all groups in ``waiting``."""
        heads = []
        known = self._heads
        for group in waiting.values():
            head = known.get(group)
            if head is None:
                model, segment = group.key
                values = self.values_of(model, models)
                head = known[group] = GroupHead(group, values, segment)
            if head.changes != group.changes:
                self._look(head)
            heads.append(head)
        return heads

    def _look(self, head: GroupHead) -> None:
        group = head.group
        first = []
        for task in group.first(_LOOK):
            first.append(self.rated(task, head))
        if first != head.first:
            head.show(first)
        head.size = len(group)
        head.changes = group.changes

    def rated(self, task: Task, head: GroupHead) -> Candidate:
        """``task`` as a candidate, rated again if its group or its priority changed."""
        one = self._known.get(task)
        if one is None or one.head is not head or one.priority != task.priority:
            return self._rate(task, head)
        return one

    def _rate(self, task: Task, head: GroupHead) -> Candidate:
        values, rank, due = head.values, rank_of(task), task.due
        gain, is_optional = values.of(task), task.exit >= 0 and not task.floor
        deadline = due if is_optional else task.deadline
        order = (rank, -gain / values.full, deadline, task.id)
        if not is_optional:
            gain = inf
        pays = -inf if is_optional and task.joules_left < inf else gain
        one = Candidate(order, rank, task.priority, deadline, due, gain, pays, task, head)
        self._known[task] = one
        return one

    def forget(self, task: Task) -> None:
        """``task`` has ended."""
        self._known.pop(task, None)

    def values_of(self, model: str, models: Mapping[str, ModelView]) -> MarginalValue:
        """The marginal values of ``model``, after ``follow(models)``."""
        values = self._values.get(model)
        if values is None:
            values = self._values[model] = MarginalValue(models[model])
        return values

    def follow(self, models: Mapping[str, ModelView]) -> None:
        """Forget models that were replaced, and take in the present costs of the others."""
        gone = []
        for name, values in self._values.items():
            if name not in models or models[name] is not values.view:
                gone.append(name)
            else:
                values.renew()
        for name in gone:
            values = self._values.pop(name)
            self._heads = {
                group: head for group, head in self._heads.items() if head.values is not values
            }


def is_affordable(task: Task, view: ModelView) -> bool:
    """Whether the next segment is within the task's energy cap."""
    left = task.joules_left
    if left == inf:
        return True
    joules = view.joules(task.segment, task.segment, 1)
    return joules is not None and joules <= left


def rank_of(task: Task) -> Rank:
    return _BEHIND * task.behind + task.priority
