"""A network of three segments of exact costs, and tasks that wait for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from delen.core.dispatch import DispatchPolicy, Key, Task, Turn
from delen.scheduler.policy_guard import InRank
from policies.learnt import OutsideTraining
from tests.sorted_group import SortedGroup


class WaitingTask(Task):
    """A task that tests may change."""

    __slots__ = ()
    __setattr__ = object.__setattr__


@dataclass
class ExactView:
    """Segments of 10 ms; a batch of n takes ``1 + (n - 1) * place`` times as long.

    Exits are right in 60, 75 and 80 % of the cases. Of what one exit gets wrong, as its confidence
    has it, the next ones mend 30 and 50 %. 2 W.
    """

    exits: int = 3
    max_batch: int = 8
    accuracies: tuple[float, ...] = (0.6, 0.75, 0.8)
    place: float = 0.5
    late_by: float = 0.0
    watts: float | None = 2.0
    seconds: tuple[float, ...] = (0.01, 0.01, 0.01)
    slowdown: float = 1.0
    slowdown_factor: float = 1.0
    corun: tuple[float, ...] = (1.0,)
    busy: int = 0
    asked: list[int] = field(default_factory=list)

    def typical(self, first: int, last: int, batch: int) -> float:
        self.asked.append(batch)
        alone = sum(self.seconds[first : last + 1]) * self.slowdown * self.slowdown_factor
        return alone * (1 + (batch - 1) * self.place)

    def latency_upper(self, first: int, last: int, batch: int) -> float:
        return self.typical(first, last, batch) + self.late_by

    def joules(self, first: int, last: int, batch: int) -> float | None:
        return self.watts and self.watts * self.typical(first, last, batch) / batch

    def accuracy_after(self, exit: int, confidence: float, target: int) -> float:
        if exit < 0:
            return self.accuracies[target]
        return confidence + (1 - confidence) * (0.0, 0.3, 0.5)[target - exit]

    def expected(self, task: Task) -> float:
        return self.typical(task.segment, task.last, 1) / self.slowdown_factor


class World:
    """Waiting tasks of one or more models, and policies that are asked about them."""

    def __init__(self, models: Mapping[str, ExactView]) -> None:
        self.models = models
        self.groups: dict[Key, SortedGroup] = {}
        self._ids = count()

    def wait(self, segment: int = 0, **given: Any) -> Task:
        """A new task that waits for ``segment``, with an answer if that is not the first."""
        known: dict[str, Any] = {
            "id": next(self._ids),
            "model": "m",
            "tenant": "t",
            "arrived": 0.0,
            "last": 2,
            "exit": segment - 1,
            "confidence": 0.5 if segment else 0.0,
        }
        task = WaitingTask(segment=segment, **{**known, **given})
        key = Key(task.model, segment)
        self.groups.setdefault(key, SortedGroup(key)).add(task)
        return task

    def leave(self, task: Task) -> None:
        key = Key(task.model, task.segment)
        self.groups[key].remove(task)
        if not self.groups[key].tasks:
            del self.groups[key]

    def ask(self, policy: DispatchPolicy, now: float = 0.0) -> Turn:
        """Its turn; another one's where a learnt policy is far from its training."""
        try:
            return policy.choose(now, self.groups, self.models)
        except OutsideTraining:
            return InRank().choose(now, self.groups, self.models)

    def drain(self, policy: DispatchPolicy, now: float = 0.0) -> list[Turn]:
        """Every turn until nothing waits; whoever runs goes on to the end of its plan."""
        turns = []
        while self.groups:
            turn = self.ask(policy, now)
            turns.append(turn)
            assert turn.run or turn.answer or turn.refuse
            for task in (*turn.answer, *turn.refuse):
                self.leave(task)
                policy.ended(now, task)
            for task in turn.run:
                self.leave(task)
            for task in turn.run:
                if task.segment == task.last:
                    policy.ended(now, task)
                    continue
                reached = task.segment
                for name, value in (("exit", reached), ("segment", reached + 1)):
                    object.__setattr__(task, name, value)
                key = Key(task.model, task.segment)
                self.groups.setdefault(key, SortedGroup(key)).add(task)
            if turn.run:
                now += 0.01
        return turns


@pytest.fixture
def view() -> ExactView:
    return ExactView()


@pytest.fixture
def world(view: ExactView) -> World:
    return World({"m": view, "n": view})


@pytest.fixture
def make_world() -> Callable[..., World]:
    """A world whose costs differ as given."""
    return lambda **given: World({"m": ExactView(**given)})
