"""The PID controller of Better Never than Late (SenSys 2021).

The error e is the deadline less the smoothed time of an answer, in milliseconds. ``u = Kp·e + Ki·Σe
+ Kd·Δe`` with Kp = 0.6, Kd = 0.4 and Ki = (1 - Kp) / t after t answers, so that the integral is the
mean. One size up at u >= 5, one down at u <= -2.5. Δe is 0 for the first answer after a switch,
which also begins the filter anew.

Smoothed by the error-based filter, and counted from the capture (see ``threshold``).
"""

from __future__ import annotations

from policies.client.api import FrameReport
from policies.client.error_filter import ErrorFilter
from policies.client.ladder import Rung, climbed, descended, spent

KP = 0.6
KD = 0.4
UP = 5.0
DOWN = -2.5


class Pid(Rung):
    name = "pid"

    def __init__(self) -> None:
        super().__init__()
        self._previous_index: int | None = None
        self._previous_error = 0.0
        self._integral = 0.0
        self._answers = 0
        self._filter = ErrorFilter()

    def ended(self, report: FrameReport) -> None:
        view = self._view
        if view is None or report.index != self._index:
            return
        switched = self._previous_index != self._index
        if switched:
            self._filter.reset()
        error = 1e3 * (view.deadline - self._filter.learn(spent(report)))
        change = 0.0 if switched else error - self._previous_error
        self._integral += error
        self._answers += 1
        control = KP * error + (1 - KP) / self._answers * self._integral + KD * change
        self._previous_index, self._previous_error = self._index, error
        if control >= UP:
            self._index = climbed(view.options, self._index)
        elif control <= DOWN:
            self._index = descended(view.options, self._index)
