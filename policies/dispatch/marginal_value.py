"""What a second of the device is worth to a task: expected accuracy gained, per second."""

from __future__ import annotations

from dataclasses import dataclass

from delen.core.dispatch import ModelView, Task

_STEPS = 200
"""Confidences are told apart in so many steps."""

_MOVED = 0.01
"""Costs that have changed by a smaller share than this are not taken in."""

_SAME = 1e-6
"""The first segment's share of all changes by less than this under one profile."""

_HORIZON = 100.0
"""The time to the deadline of a task without one, in times of the whole network."""

_KEPT = 256
"""Plans of which the worths found are kept."""


@dataclass(slots=True, eq=False)
class Step:
    """What a segment takes one task alone: typical ``seconds``, and ``late`` those with answering,
    at the quantile that plans use."""

    seconds: float = 0.0
    late: float = 0.0


class MarginalValue:
    """The worth of the tasks of one model, and what its segments take one task alone.

    ``steps[k]`` is what segment k takes; all of them take ``full``, and ``slowest`` by ``late``. Of
    these, segments k to l take ``shares[k][l]`` and ``late_shares[k][l]``. ``largest`` is the
    largest batch, and ``horizon`` the time to the deadline of a task without one.

    The worth of a task with floor is its plan's accuracy over the time that the plan is expected
    to take from here, since nothing counts without its end. That of others is the steepest way on,
    as in Gittins' index (1979): with confidence c at exit k

        max over later exits t of (accuracy of t, given c at k - accuracy of k) / seconds to t.

    It is kept per time of the whole network, ``full``, which follows the costs in ``renew``: a
    slowdown changes all segments alike, and so do busy lanes (``slowdown_factor``). Another
    profile, of another power mode, changes them apart: then all is worked out anew.
    """

    def __init__(self, figures: ModelView) -> None:
        self.figures = figures
        self.slowdown_factor = figures.slowdown_factor
        self.last = figures.exits - 1
        self.steps = [Step() for _ in range(figures.exits)]
        self._work_out()

    def _work_out(self) -> None:
        figures = self.figures
        full, late = self._whole()
        segments = range(figures.exits)
        self.shares = [
            [figures.typical(k, max(k, end), 1) / full for end in segments] for k in segments
        ]
        self.late_shares = [
            [figures.latency_upper(k, max(k, end), 1) / late for end in segments] for k in segments
        ]
        self.largest = figures.max_batch
        self._most: list[int | None] = [None] * figures.exits
        self._places: dict[tuple[int, int], float] = {}
        self._plans: dict[tuple[int, int, float | None], float] = {}
        self._ways: dict[tuple[int, int], list[float | None]] = {}
        self._take_in(full, late)

    def _whole(self) -> tuple[float, float]:
        return self.figures.typical(0, self.last, 1), self.figures.latency_upper(0, self.last, 1)

    def renew(self) -> None:
        """Take in what the segments take now.

        Another profile under which the whole takes as long as before is seen when that moves."""
        figures = self.figures
        self.slowdown_factor = figures.slowdown_factor
        late = figures.latency_upper(0, self.last, 1)
        same = figures.max_batch == self.largest
        if same and abs(late - self.slowest) <= _MOVED * late:
            return
        full = figures.typical(0, self.last, 1)
        first, known = figures.typical(0, 0, 1), self.shares[0][0] * full
        if same and abs(first - known) <= _SAME * full:
            self._take_in(full, late)
        else:
            self._work_out()

    def _take_in(self, full: float, late: float) -> None:
        self.full = full
        self.slowest = late
        self.horizon = _HORIZON * full
        for k, step in enumerate(self.steps):
            step.seconds = self.shares[k][k] * full
            step.late = self.late_shares[k][k] * late

    def most(self, segment: int) -> int:
        """The largest batch that takes no longer than the whole network takes one task."""
        most = self._most[segment]
        if most is None:
            longest, typical = self._whole()[0], self.figures.typical
            most = 1
            while most < self.figures.max_batch and typical(segment, segment, most + 1) <= longest:
                most += 1
            self._most[segment] = most
        return most

    def place(self, segment: int, size: int) -> float:
        """What one more place in a batch of ``size`` takes, over what one task takes alone."""
        if size == 1:
            return 1.0
        place = self._places.get((segment, size))
        if place is None:
            alone = self.figures.typical(segment, segment, 1)
            added = self.figures.typical(segment, segment, size) - alone
            place = self._places[segment, size] = added / (size - 1) / alone
        return place

    def of(self, task: Task) -> float:
        """The accuracy that ``task`` is expected to gain in the time of the whole network."""
        if task.floor:
            return self._of_plan(task)
        ways = self._ways.get((task.segment, task.last))
        if ways is None:
            ways = self._ways[task.segment, task.last] = [None] * (_STEPS + 1)
        step = round(task.confidence * _STEPS)
        worth = ways[step]
        if worth is None:
            worth = ways[step] = self._of_way_on(task, step / _STEPS)
        return worth

    def _of_plan(self, task: Task) -> float:
        plan = (task.segment, task.last, task.threshold)
        worth = self._plans.get(plan)
        if worth is None:
            if len(self._plans) >= _KEPT:
                self._plans.clear()
            seconds = self.figures.expected(task)
            worth = self.figures.accuracies[task.last] / seconds * self._whole()[0]
            self._plans[plan] = worth
        return worth

    def _of_way_on(self, task: Task, confidence: float) -> float:
        exit, accuracy, shares = task.exit, self.figures.accuracy_after, self.shares[task.segment]
        now = accuracy(exit, confidence, exit) if exit >= 0 else 0.0
        ways = range(task.segment, task.last + 1)
        return max([(accuracy(exit, confidence, way) - now) / shares[way] for way in ways])
