"""The model predictive controller of Better Never than Late (SenSys 2021).

Over the next 5 frames it maximises ``Σ acc - w·Σ|Δacc|`` with every end-to-end time within the
deadline; ``e2e = network + model + wait`` and ``wait = max(0, e2e_before - period - network)``. The
first frame's option is taken. Without a solution the present one stays.

Network time is payload over the harmonic mean of the last 5 throughputs, model time the profiled
one times its observed slowdown (moving average, weight 0.75 on the past), and a payload the mean
one times the last frame's deviation. An answer sets its own frame's e2e to 0. w = 1, as in the
source's model file. Encoding counts as model time.

The source solves an integer programme. Here a table over the steps does: by step, option and best
value so far. It keeps one e2e for each, which is exact unless the daemon takes longer than a
period. The source blocks at 8 frames without feedback in this controller; the rule here is the one
that they share (``ladder``).
"""

from __future__ import annotations

from collections import deque
from math import inf

import numpy as np

from policies.client.api import FrameChoice, FrameReport, StreamView
from policies.client.ladder import is_stale

HORIZON = 5
SWITCHING_WEIGHT = 1.0
THROUGHPUTS = 5
SLOWDOWN_WEIGHT = 0.75
_LEAST_SECONDS = 1e-5


class Mpc:
    name = "mpc"

    def __init__(self) -> None:
        self._index = 0
        self._throughputs: deque[float] = deque(maxlen=THROUGHPUTS)
        self._slowdown: float | None = None
        self._deviation = 1.0
        self._last_frame = -1
        self._last_end_to_end = 0.0
        self._view: StreamView | None = None

    def choose(self, view: StreamView) -> FrameChoice | None:
        self._view = view
        self._index = min(self._index, len(view.options) - 1)
        if is_stale(view):
            return None
        if self._throughputs:
            self._plan(view)
        self._last_frame = view.frame
        return FrameChoice(self._index)

    def _plan(self, view: StreamView) -> None:
        throughput = len(self._throughputs) / sum(1 / each for each in self._throughputs)
        options, slowdown = view.options, self._slowdown or 1.0
        network = np.array([self._deviation * each.payload / throughput for each in options])
        model = np.array([slowdown * each.latency + each.encoding for each in options])
        accuracy = np.array([each.accuracy for each in options])
        # The first frame has lost what passed since its capture.
        lag = view.now - view.captured
        changes = SWITCHING_WEIGHT * np.abs(accuracy[None, :] - accuracy[:, None])
        end_to_end = lag + model + np.maximum(network, self._last_end_to_end - view.period)
        value = np.where(end_to_end <= view.deadline, accuracy - changes[self._index], -inf)
        if value.max() > -inf:
            first = np.arange(len(options))
            for _ in range(HORIZON - 1):
                after = model + np.maximum(network, (end_to_end - view.period)[:, None])
                gain = value[:, None] + accuracy - changes
                gain[after > view.deadline] = -inf
                best = gain.argmax(axis=0)
                value, first = gain.max(axis=0), first[best]
                end_to_end = after[best, np.arange(len(options))]
            if value.max() > -inf:
                self._index = int(first[value.argmax()])
        index = self._index
        self._last_end_to_end = float(
            model[index] + max(network[index], self._last_end_to_end - view.period)
        )

    def ended(self, report: FrameReport) -> None:
        view = self._view
        if view is None or report.network is None or report.latency is None:
            return
        option = view.options[report.index]
        self._throughputs.append(report.payload / max(_LEAST_SECONDS, report.network))
        self._deviation = report.payload / option.payload
        slowdown = report.latency / max(_LEAST_SECONDS, option.latency)
        past = slowdown if self._slowdown is None else self._slowdown
        self._slowdown = SLOWDOWN_WEIGHT * past + (1 - SLOWDOWN_WEIGHT) * slowdown
        if report.frame == self._last_frame:
            self._last_end_to_end = 0.0
