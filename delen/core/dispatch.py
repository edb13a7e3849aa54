"""What a dispatch policy sees and returns: waiting tasks by model and segment, and a turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What scheduling knows of a job. Only the scheduler changes it, while it does not wait.

    It waits for ``segment`` and runs to exit ``last`` at the deepest. ``exit`` is its best answer
    so far (-1: none) with calibrated ``confidence``; ``threshold`` is the confidence at which its
    plan stops earlier (None: none). ``floor`` is true if an answer before its plan's end breaks a
    bound. ``deadline`` (seconds, the caller's clock; inf if none) is when its answer has to leave;
    without one it has ``patience`` (seconds) before it goes first. ``joules_left`` is the rest of
    its energy cap (inf if none). ``weight`` is its tenant's; ``behind`` is true while its tenant
    has used more than its share. ``priority`` 1 goes first.
    """

    id: int
    model: str
    tenant: str
    arrived: float
    segment: int
    last: int
    deadline: float = inf
    priority: int = 5
    weight: float = 1.0
    behind: bool = False
    floor: bool = False
    threshold: float | None = None
    exit: int = -1
    confidence: float = 0.0
    joules_left: float = inf
    waiting_since: float = 0.0
    patience: float = inf

    @property
    def mandatory(self) -> bool:
        """Whether ending it now would leave it with no answer, or with a broken floor."""
        return self.exit < 0 or self.floor

    @property
    def due(self) -> float:
        """Its deadline; without one, when its patience has passed and it goes before later
        deadlines. A task without a deadline is never late."""
        return self.deadline if self.deadline < inf else self.arrived + self.patience

    @property
    def rank(self) -> tuple[bool, int, float, float, int]:
        """The order in which tasks of a group are served: share, priority, when due, arrival."""
        due = self.deadline if self.deadline < inf else self.arrived + self.patience
        return (self.behind, self.priority, due, self.arrived, self.id)


class Key(NamedTuple):
    """A group: the tasks that wait for one segment of one model."""

    model: str
    segment: int


class Group(Protocol):
    """The waiting tasks of one key, in order of rank. Reading the first few is cheap.

    One object represents its key as long as its model is there; it may be empty meanwhile."""

    @property
    def key(self) -> Key: ...
    @property
    def changes(self) -> int:
        """How many tasks have joined and left: what was read is valid while this is the same."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Task]: ...
    def first(self, count: int) -> Sequence[Task]: ...
    @property
    def oldest(self) -> Task:
        """The task that arrived first."""

    @property
    def last(self) -> Task:
        """The task that ranks last."""


class ModelView(Protocol):
    """One model at the costs of the moment. Times in seconds, joules a task."""

    @property
    def exits(self) -> int: ...
    @property
    def max_batch(self) -> int: ...
    @property
    def accuracies(self) -> Sequence[float]: ...
    @property
    def slowdown_factor(self) -> float:
        """How many times longer everything takes now than on an idle device, because of busy
        lanes; it is part of all times but ``expected``."""

    @property
    def corun(self) -> Sequence[float]:
        """``corun[k]`` is the believed slowdown while k other lanes are busy; one for each lane."""

    @property
    def busy(self) -> int:
        """How many lanes are busy."""

    def typical(self, first: int, last: int, batch: int) -> float:
        """The median time of segments ``first`` to ``last`` on a batch."""

    def latency_upper(self, first: int, last: int, batch: int) -> float:
        """Their time, and that of answering, at the quantile that plans use."""

    def joules(self, first: int, last: int, batch: int) -> float | None:
        """Predicted energy of one task of the batch; None if unknown."""

    def accuracy_after(self, exit: int, confidence: float, target: int) -> float:
        """Expected accuracy of exit ``target`` for a task that was ``confidence`` sure at
        ``exit`` (-1: nothing is known of it yet), which is no later than ``target``."""

    def expected(self, task: Task) -> float:
        """The time that a task takes alone up to its end, less if it may be confident before."""


class Turn(NamedTuple):
    """What is to happen now, in lists or tuples of tasks.

    ``run`` are tasks of one group to run as a batch (empty: nothing), ``answer`` tasks that end
    now with the answer they have, ``refuse`` tasks without one that are given up. With nothing
    to run, ``wake`` (seconds, the caller's clock) is when to choose again though nothing happened.
    A policy may delay everything for a second, but not beyond the latest start of any task.
    """

    run: Sequence[Task] = ()
    answer: Sequence[Task] = ()
    refuse: Sequence[Task] = ()
    wake: float = inf


class Ran(NamedTuple):
    """A batch of ``key`` that took ``seconds`` where ``predicted`` was typical."""

    key: Key
    batch: int
    seconds: float
    predicted: float


@dataclass(frozen=True, slots=True)
class PolicyCapabilities:
    """What a policy leaves to others: its attribute ``capabilities``, all of it without one.

    ``plans``: tasks stop by their plan and the exit policy. If not, they run to the deepest exit
    unless the dispatch policy ends them before. ``admits``: requests that cannot be in time under
    the load are refused at arrival. ``guards``: the scheduler answers tasks that have an answer
    and cannot get a better one in time.
    """

    plans: bool = True
    admits: bool = True
    guards: bool = True


class DispatchPolicy(Protocol):
    """Chooses which tasks run next. Pure: time and views are arguments.

    It may keep state, learnt in ``ran`` and ``ended``. It cannot change a task. An attribute
    ``capabilities`` may say what nobody should do for it. ``runs_alone(now, task, models)`` may say
    whether ``choose`` would run ``task`` now if it alone waited and nothing ran: then a task that
    is alone starts without a choice.
    """

    name: str

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn: ...

    def ran(self, now: float, ran: Ran) -> None: ...

    def ended(self, now: float, task: Task) -> None: ...


class NoFeedback:
    """The methods of a DispatchPolicy that ignores what ran and what ended."""

    def ran(self, now: float, ran: Ran) -> None:
        """Nothing to learn."""

    def ended(self, now: float, task: Task) -> None:
        """Nothing to forget."""
