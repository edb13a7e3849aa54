"""What the upper bound is compared with: exact optima of small instances, and the fluid by slots.

HiGHS solves both, through scipy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from delen.simulate.bounds.least_costs import Tasks


@dataclass(frozen=True, slots=True)
class SmallTask:
    """A request that is answered rightly once its first ``segments`` segments have run between
    ``release`` and ``deadline``, both in whole ticks."""

    release: int
    deadline: int
    segments: int


@dataclass(frozen=True, slots=True)
class _Run:
    """Some tasks run ``segment`` as one batch from tick ``start`` to tick ``end``."""

    segment: int
    tasks: tuple[int, ...]
    start: int
    end: int


def exact_optimum(
    tasks: Sequence[SmallTask], ticks: Sequence[Sequence[int]], lanes: int = 1
) -> int:
    """The most of ``tasks`` that any schedule answers in time, without preemption inside a run.

    ``ticks[segment][n - 1]`` is the duration of a batch of n, which must not fall with n. An
    integer program with one variable for every run that there might be: whole ticks are enough,
    since a schedule in which nothing can start earlier starts everything on one. For some eight
    tasks and batches of up to two.
    """
    runs = _possible_runs(tasks, ticks)
    if not runs:
        return 0
    chosen = len(runs)
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    lower: list[float] = []
    upper: list[float] = []

    def constrain(terms: Sequence[tuple[int, float]], low: float, high: float) -> None:
        rows.extend([len(upper)] * len(terms))
        columns.extend(column for column, _ in terms)
        values.extend(value for _, value in terms)
        lower.append(low)
        upper.append(high)

    last = max(run.end for run in runs)
    for tick in range(last):
        busy = [(i, 1.0) for i, run in enumerate(runs) if run.start <= tick < run.end]
        constrain(busy, -np.inf, lanes)
    for index, task in enumerate(tasks):
        own = [(i, run) for i, run in enumerate(runs) if index in run.tasks]
        for segment in range(task.segments):
            here = [(i, run) for i, run in own if run.segment == segment]
            constrain([*((i, 1.0) for i, _ in here), (chosen + index, -1.0)], 0, 0)
            if segment == 0:
                continue
            for tick in range(task.release, task.deadline):
                started = [(i, 1.0) for i, run in here if run.start <= tick]
                ended = [
                    (i, -1.0) for i, run in own if run.segment == segment - 1 and run.end <= tick
                ]
                if started:
                    constrain([*started, *ended], -np.inf, 0)
    cost = np.concatenate([np.zeros(chosen), -np.ones(len(tasks))])
    matrix = sparse.csr_array((values, (rows, columns)), shape=(len(upper), len(cost)))
    solution = optimize.milp(
        cost,
        integrality=np.ones(len(cost)),
        bounds=optimize.Bounds(0, 1),
        constraints=optimize.LinearConstraint(matrix, lower, upper),
    )
    _check(solution)
    return round(-float(solution.fun))


def _possible_runs(tasks: Sequence[SmallTask], ticks: Sequence[Sequence[int]]) -> list[_Run]:
    runs = []
    for segment, durations in enumerate(ticks):
        if list(durations) != sorted(durations) or durations[0] < 1:
            raise ValueError(f"durations of segment {segment} must ascend from at least 1 tick")
        fits = [index for index, task in enumerate(tasks) if task.segments > segment]
        for size, duration in enumerate(durations, start=1):
            for members in combinations(fits, size):
                first = max(tasks[index].release for index in members)
                last = min(tasks[index].deadline for index in members) - duration
                runs += [
                    _Run(segment, members, start, start + duration)
                    for start in range(first, last + 1)
                ]
    return runs


def slotted_fluid(tasks: Tasks, slot: float, lanes: int = 1) -> float:
    """The fluid of ``fluid_bound`` by linear programming over slots of ``slot`` seconds.

    A task may use all of a slot that its window touches, so that this is never below the fluid,
    whatever the slots; where they are fine, or windows start and end on slots, it is the same.
    Deadlines must be finite.
    """
    first = np.floor(tasks.release / slot).astype(np.int64)
    end = np.maximum(first + 1, np.ceil(tasks.deadline / slot).astype(np.int64))
    lengths = end - first
    task = np.repeat(np.arange(len(first)), lengths)
    used = _ranges(first, lengths)
    columns = np.arange(len(task))
    row = np.concatenate([task, len(first) + used])
    matrix = sparse.csr_array(
        (np.ones(2 * len(task)), (row, np.concatenate([columns, columns]))),
        shape=(len(first) + int(end.max(initial=0)), len(task)),
    )
    limits = np.concatenate(
        [tasks.seconds * tasks.limit, np.full(int(end.max(initial=0)), lanes * slot)]
    )
    if not len(task):
        return 0.0
    solution = optimize.linprog(
        -1 / tasks.seconds[task], A_ub=matrix, b_ub=limits, bounds=(0, None), method="highs"
    )
    _check(solution)
    return -float(solution.fun)


def _ranges(first: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """``first[i], first[i] + 1, ...`` of each length, one after the other."""
    before = np.repeat(np.cumsum(lengths) - lengths, lengths)
    ranges: NDArray[np.int64] = np.repeat(first, lengths) + np.arange(len(before)) - before
    return ranges


def _check(solution: object) -> None:
    if not getattr(solution, "success", False):
        raise RuntimeError(f"HiGHS: {getattr(solution, 'message', 'no message')}")
