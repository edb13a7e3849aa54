"""What the device draws beside requests, as its own sensor shows it."""

from __future__ import annotations

from math import exp

from policies.energy.constraint import PowerView

_MEMORY = 1.0
_OBSERVED_MEMORY = 4.0
_LAG = 0.5
"""Seconds that a sensor is taken to lag behind where nobody has found out: late is the safe side,
since what requests draw is then not missed before it is seen."""


class Baseline:
    """Watts of the measured total that no request draws.

    Where windows of attribution report them (``static + other``: all that was measured and given
    to no request), these are followed. Until then a disturbance observer stands in (Chen et al.,
    "Disturbance-observer-based control and related methods", IEEE Trans. Ind. Electronics 63,
    2016, section II): what requests were counted with is passed through the sensor's lag and taken
    from what it measured; the rest is low-passed. Either way errors of prediction are part of it,
    so that a cap which leaves it out of what requests may draw has no lasting error. An estimate
    does not know it.
    """

    def __init__(self) -> None:
        self.watts: float | None = None
        self.measured = False
        self._seen = 0.0
        self._attributed = False
        self._time: float | None = None

    def tick(self, view: PowerView, joules: float) -> None:
        """Take in the view, and the ``joules`` that requests have used since the last one."""
        elapsed = 0.0 if self._time is None else max(0.0, view.now - self._time)
        self._time = view.now
        if elapsed > 0:
            lag = _LAG if view.lag is None else view.lag
            self._seen += _follow(elapsed, lag) * (joules / elapsed - self._seen)
        self.measured = view.watts is not None and not view.estimated
        if view.estimated:
            self.watts = None
        elif view.static is not None and view.other is not None:
            self._move(view.static + view.other, elapsed, _MEMORY, jump=not self._attributed)
            self._attributed = True
        elif view.watts is not None:
            self._move(view.watts - self._seen, elapsed, _OBSERVED_MEMORY, jump=False)
            self._attributed = False

    def _move(self, watts: float, elapsed: float, memory: float, jump: bool) -> None:
        if self.watts is None or jump:
            self.watts = watts
        else:
            self.watts += _follow(elapsed, memory) * (watts - self.watts)


def _follow(elapsed: float, memory: float) -> float:
    """The share of a step that a low-pass has followed after ``elapsed`` seconds."""
    return 1 - exp(-elapsed / memory) if memory > 0 else 1.0
