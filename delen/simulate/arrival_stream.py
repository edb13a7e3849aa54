"""The requests of a trace as they reach the device, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from delen.simulate.trace import Arrival

_STEPS = 100
"""How often a run reports its progress."""

Progress = Callable[[int, int], None]
"""Called with how many requests have arrived, and how many there are."""


class ArrivalStream:
    """``arrivals`` with the ``samples`` that they are about, each ``delay`` seconds on its way."""

    def __init__(
        self,
        arrivals: Sequence[Arrival],
        samples: Sequence[int],
        delay: float,
        progress: Progress | None = None,
    ) -> None:
        self._arrivals = arrivals
        self._samples = samples
        self._delay = delay
        self._progress = progress
        self._step = max(1, len(arrivals) // _STEPS)
        self._taken = 0
        self.next_at = self._when()
        """When the next one arrives, in seconds; inf if all have."""

    def take(self) -> tuple[int, Arrival, int]:
        """The next one: its row in the trace, the arrival, and its sample."""
        row = self._taken
        self._taken = taken = row + 1
        self.next_at = self._when()
        if taken % self._step == 0 and self._progress is not None:
            self._progress(taken, len(self._arrivals))
        return row, self._arrivals[row], self._samples[row]

    def _when(self) -> float:
        if self._taken == len(self._arrivals):
            return inf
        return self._arrivals[self._taken].time + self._delay
