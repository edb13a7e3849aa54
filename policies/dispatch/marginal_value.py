"""The marginal value of device time to a task: expected accuracy gained per second."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from delen.core.dispatch import ModelView, Task

_STEPS = 200
"""Confidences are distinguished in so many steps."""

_SAME = 1e-6
"""The first segment's share of all changes by less than this under one profile."""

_HORIZON = 100.0
"""The time to the deadline of a task without one, in times of the whole network."""

_KEPT = 256
"""How many plans' values are kept."""


@dataclass(slots=True, eq=False)
class Step:
    """What a segment takes for one task alone: typical ``seconds``, and ``latency_upper``, the
    seconds with answering at the quantile that plans use."""

    seconds: float = 0.0
    latency_upper: float = 0.0


class MarginalValue:
    """The marginal value of the tasks of one model, and what its segments take for one task alone.

    ``steps[k]`` is what segment k takes; the whole network takes ``full`` typically, and
    ``slowest`` by ``latency_upper``. Segments k to l take the shares ``shares[k][l]`` and
    ``latency_upper_shares[k][l]`` of them. ``largest`` is the largest batch, and ``horizon`` the
    time to the deadline of a task without one.

    The value of a task with a floor is its plan's accuracy over the time that the plan is expected
    to take from here, since nothing counts without its end. The value of other tasks is the
    steepest way on, as in Gittins' index (1979): with confidence c at exit k

        max over later exits t of (accuracy of t, given c at k - accuracy of k) / seconds to t.

    Values are kept per time of the whole network, ``full``, which follows the costs in ``renew``: a
    slowdown changes all segments alike, and so do busy lanes (``slowdown_factor``). The profile of
    another power mode does not: then everything is computed again.
    """

    def __init__(self, view: ModelView) -> None:
        self.view = view
        self.slowdown_factor = view.slowdown_factor
        self.last = view.exits - 1
        self.steps = [Step() for _ in range(view.exits)]
        self._work_out()

    def _work_out(self) -> None:
        view = self.view
        full, upper = self._whole()
        segments = range(view.exits)
        self.shares = [
            [view.typical(k, max(k, end), 1) / full for end in segments] for k in segments
        ]
        self.latency_upper_shares = [
            [view.latency_upper(k, max(k, end), 1) / upper for end in segments] for k in segments
        ]
        self._steps = [
            (step, self.shares[k][k], self.latency_upper_shares[k][k])
            for k, step in enumerate(self.steps)
        ]
        self.largest = view.max_batch
        self._most: dict[tuple[int, bool], int] = {}
        self._position_costs: dict[tuple[int, int], float] = {}
        self._plans: dict[tuple[int, int, float | None], float] = {}
        self._ways: dict[tuple[int, int], list[float | None]] = {}
        self._take_in(full, upper)

    def _whole(self) -> tuple[float, float]:
        return self.view.typical(0, self.last, 1), self.view.latency_upper(0, self.last, 1)

    def renew(self) -> None:
        """Take in what the segments take now.

        Another profile under which the whole takes as long as before is seen when that moves."""
        view = self.view
        self.slowdown_factor = view.slowdown_factor
        upper = view.latency_upper(0, self.last, 1)
        same = view.max_batch == self.largest
        if same and upper == self.slowest:
            return
        full = view.typical(0, self.last, 1)
        first, known = view.typical(0, 0, 1), self.shares[0][0] * full
        if same and abs(first - known) <= _SAME * full:
            self._take_in(full, upper)
        else:
            self._work_out()

    def _take_in(self, full: float, upper: float) -> None:
        self.full = full
        self.slowest = upper
        self.horizon = _HORIZON * full
        for step, share, upper_share in self._steps:
            step.seconds = share * full
            step.latency_upper = upper_share * upper

    def most(self, segment: int, behind: bool = False) -> int:
        """The largest batch that is no slower than its tasks one by one. With tasks ``behind``
        their share it takes no longer than the whole network takes one: who is within its share
        may come meanwhile."""
        most = self._most.get((segment, behind))
        if most is None:
            typical, longest = self.view.typical, self._whole()[0] if behind else inf
            alone, sizes = typical(segment, segment, 1), range(2, self.view.max_batch + 1)
            fit = [n for n in sizes if typical(segment, segment, n) <= min(n * alone, longest)]
            most = self._most[segment, behind] = max(fit, default=1)
        return most

    def position_cost(self, segment: int, size: int) -> float:
        """What one more position in a batch of ``size`` takes, over what one task takes alone."""
        if size == 1:
            return 1.0
        cost = self._position_costs.get((segment, size))
        if cost is None:
            alone = self.view.typical(segment, segment, 1)
            added = self.view.typical(segment, segment, size) - alone
            cost = self._position_costs[segment, size] = added / (size - 1) / alone
        return cost

    def of(self, task: Task) -> float:
        """The accuracy that ``task`` is expected to gain in the time of the whole network."""
        if task.floor:
            return self._of_plan(task)
        ways = self._ways.get((task.segment, task.last))
        if ways is None:
            ways = self._ways[task.segment, task.last] = [None] * (_STEPS + 1)
        step = round(task.confidence * _STEPS)
        value = ways[step]
        if value is None:
            value = ways[step] = self._of_way_on(task, step / _STEPS)
        return value

    def _of_plan(self, task: Task) -> float:
        plan = (task.segment, task.last, task.threshold)
        value = self._plans.get(plan)
        if value is None:
            if len(self._plans) >= _KEPT:
                self._plans.clear()
            seconds = self.view.expected(task)
            value = self.view.accuracies[task.last] / seconds * self._whole()[0]
            self._plans[plan] = value
        return value

    def _of_way_on(self, task: Task, confidence: float) -> float:
        exit, accuracy, shares = task.exit, self.view.accuracy_after, self.shares[task.segment]
        now = accuracy(exit, confidence, exit) if exit >= 0 else 0.0
        ways = range(task.segment, task.last + 1)
        return max([(accuracy(exit, confidence, way) - now) / shares[way] for way in ways])
