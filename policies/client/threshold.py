"""The threshold controller of Better Never than Late (SenSys 2021; its code's ``basic``).

Each answer has a score: ``-|d|`` where it is early and ``d^1.25`` where it is late, with d its
smoothed time beyond the deadline in milliseconds. The sum of the last 50 decides: one size up at
``-5·50`` or less, one down at ``2.5·50`` or more; a switch empties the window and the filter.

Times are smoothed by the error-based filter. They count from the capture, as the deadline does; the
source counts both from the sending.
"""

from __future__ import annotations

from collections import deque

from policies.client.api import FrameReport
from policies.client.error_filter import ErrorFilter
from policies.client.ladder import Rung, climbed, descended, spent

WINDOW = 50
LATE_EXPONENT = 1.25
UP = -5.0 * WINDOW
DOWN = 2.5 * WINDOW


class Threshold(Rung):
    name = "threshold"

    def __init__(self) -> None:
        super().__init__()
        self._scores: deque[float] = deque(maxlen=WINDOW)
        self._filter = ErrorFilter()

    def ended(self, report: FrameReport) -> None:
        view = self._view
        if view is None or report.index != self._index:
            return
        late = 1e3 * (self._filter.learn(spent(report)) - view.deadline)
        self._scores.append(late**LATE_EXPONENT if late > 0 else late)
        score, before = sum(self._scores), self._index
        if score <= UP:
            self._index = climbed(view.options, before)
        elif score >= DOWN:
            self._index = descended(view.options, before)
        if self._index != before:
            self._scores.clear()
            self._filter.reset()
