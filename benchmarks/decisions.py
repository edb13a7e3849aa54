"""What a decision costs, by how many tasks wait.

A decision is ``Scheduler.next``: policy, check of its turn, and taking the batch out of the queue.
As many tasks as it takes out are put back, at other ranks, before the next one, so that the queue
stays as long as it is. Deadlines, priorities, tenants and exits are mixed.

A turn is all that the scheduler does for such a decision: also the reports that a batch and its
tasks ended, and that as many others arrived.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from statistics import median
from typing import NamedTuple

from benchmarks.common import Figure, report
from delen.core.dispatch import DispatchPolicy, Task
from delen.daemon.settings import DEFAULT_DISPATCH
from delen.profile.cost_model import CostModel
from delen.profile.profile import Device, Profile, Quantiles, SegmentCost
from delen.scheduler.core import Scheduler
from delen.scheduler.model_view import ScheduledModel
from delen.simulate.profiled_energy import ProfiledEnergy
from delen.simulate.synthetic import synthetic
from policies.plugins import DISPATCH_POLICIES, find_plugin, plugin_names

WAITING = (1, 10, 100, 1_000, 10_000)
DECISIONS = 400
ROUNDS = 5
DEFAULT = DEFAULT_DISPATCH
LIMIT = 20.0
"""Microseconds at 100 waiting tasks; at 10,000 it may be twice as much."""

_MODEL = "network"
_EXITS = 5
_MAX_BATCH = 8


def _view() -> ScheduledModel:
    def cost(batch: int) -> SegmentCost:
        median = 1e-3 * (0.4 + 0.6 * batch)
        quantiles = Quantiles(median, 1.1 * median, 1.2 * median, 1.4 * median)
        return SegmentCost(quantiles, median, 1e-3 * median)

    profile = Profile(
        model=_MODEL,
        bundle="none",
        device=Device("none", 1, "none", "none", 1, "none"),
        created="",
        quick=False,
        answer=Quantiles(1e-4, 1e-4, 1e-4, 1e-4),
        segments=tuple({batch: cost(batch) for batch in (1, _MAX_BATCH)} for _ in range(_EXITS)),
    )
    calibration = synthetic((0.7, 0.75, 0.8, 0.84, 0.86), 2000, 0)
    return ScheduledModel(CostModel(profile, ProfiledEnergy(None), 0.99), calibration, _MAX_BATCH)


class _Queue:
    """A scheduler in which ``waiting`` tasks wait, none of them so late that it is ended."""

    def __init__(self, policy: DispatchPolicy, waiting: int) -> None:
        self._random = random.Random(waiting)
        self._ids = iter(range(1 << 40))
        self._now = 0.0
        self._scheduler = Scheduler(policy, policy)
        self._scheduler.learn_model(_MODEL, _view())
        for _ in range(waiting):
            self._scheduler.add(self._now, self._make())

    def _make(self) -> Task:
        number, draw = next(self._ids), self._random
        task = Task(
            id=number,
            model=_MODEL,
            tenant=f"app{number % 10}",
            arrived=self._now,
            segment=0,
            last=_EXITS - 1,
            deadline=inf if number % 5 == 0 else self._now + draw.uniform(1e3, 2e3),
            priority=draw.choice((3, 5, 5, 5, 7)),
            floor=number % 7 == 0,
            threshold=0.9 if number % 3 else None,
        )
        reached = number % _EXITS
        if reached:
            task = replace(task, segment=reached, exit=reached - 1, confidence=draw.random())
        return task

    def turn(self) -> tuple[float, float]:
        """Seconds of one decision, and of the scheduler in the whole turn."""
        began = time.perf_counter()
        decision = self._scheduler.next(self._now)
        seconds = time.perf_counter() - began
        run = decision.run
        gone = len(decision.answer) + len(decision.overdue) + len(decision.refuse)
        self._now += 1e-3
        arriving = [self._make() for _ in range(gone + (len(run.tasks) if run else 0))]
        began = time.perf_counter()
        if run is not None:
            self._scheduler.ran(self._now, run, run.predicted)
            for task in run.tasks:
                self._scheduler.end(self._now, task)
        for task in arriving:
            self._scheduler.add(self._now, task)
        return seconds, seconds + time.perf_counter() - began


class _Medians(NamedTuple):
    """Microseconds in each of ROUNDS rounds."""

    decisions: tuple[float, ...]
    turns: tuple[float, ...]


def costs(make: Callable[[], DispatchPolicy], waiting: int) -> _Medians:
    """Of a decision with ``waiting`` tasks, and of a whole turn."""
    queue = _Queue(make(), waiting)
    rounds = [[queue.turn() for _ in range(DECISIONS)] for _ in range(ROUNDS)]
    medians = [[1e6 * median(seconds) for seconds in zip(*turns, strict=True)] for turns in rounds]
    decisions, turns = zip(*medians, strict=True)
    return _Medians(decisions, turns)


def main() -> list[Figure]:
    print(f"\n{'median us a decision, waiting:':<32}" + "".join(f"{n:>9}" for n in WAITING))
    curves: dict[str, dict[int, _Medians]] = {}
    for name in plugin_names(DISPATCH_POLICIES):
        make = find_plugin(DISPATCH_POLICIES, name)
        curves[name] = {waiting: costs(make, waiting) for waiting in WAITING}
        medians = "".join(f"{median(each.decisions):>9.1f}" for each in curves[name].values())
        print(f"{name:<32}{medians}", flush=True)
    few, many = curves[DEFAULT][100], curves[DEFAULT][10_000]
    growth = tuple(b / a for a, b in zip(few.decisions, many.decisions, strict=True))
    return report(
        "A decision of the default policy",
        [
            Figure("at 100 waiting tasks", few.decisions, "us", LIMIT),
            Figure("at 10,000 over at 100", growth, "x", 2.0),
            Figure("a whole turn at 100", few.turns, "us"),
        ],
    )


if __name__ == "__main__":
    main()
