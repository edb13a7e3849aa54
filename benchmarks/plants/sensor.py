"""Sensors as boards have them: late, averaging, in steps, with noise, one rail after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from benchmarks.plants.device import Floats

POLL = 0.05
JITTER = 0.1
Drawn: TypeAlias = Callable[[Floats], Floats]
"""Joules drawn up to moments."""


@dataclass(frozen=True)
class Sensor:
    """The mean over each ``window`` seconds, held until the next one is done, ``delay`` seconds
    late, with ``noise`` and in steps of ``quantum`` (watts). With ``rails`` their shares of the
    power are read in turn, ``apart`` seconds from one to the next, and the reading is stamped in
    the middle; noise and steps are those of the sum. ``lag`` is the time constant of a low-pass
    before all this."""

    window: float = 0.0066
    delay: float = 0.0
    quantum: float = 0.04
    noise: float = 0.02
    rails: tuple[float, ...] = (1.0,)
    apart: float = 0.01
    lag: float = 0.0

    def read(self, drawn: Drawn, times: Floats, rng: np.random.Generator) -> Floats:
        phase = rng.uniform(0, self.window)
        total = np.zeros(len(times))
        for number, share in enumerate(self.rails):
            moments = times + (number - (len(self.rails) - 1) / 2) * self.apart - self.delay
            updates, held = np.unique(
                np.floor((moments - phase) / self.window), return_inverse=True
            )
            ends = phase + updates * self.window
            seen = (self._low(drawn, ends) - self._low(drawn, ends - self.window)) / self.window
            noise = rng.normal(0, self.noise / np.sqrt(len(self.rails)), len(ends))
            total += (share * seen + noise)[held.reshape(-1)]
        return np.round(total / self.quantum) * self.quantum

    def _low(self, drawn: Drawn, moments: Floats) -> Floats:
        """Joules that the low-pass let through up to ``moments``."""
        if self.lag == 0:
            return drawn(moments)
        share = (np.arange(64) + 0.5) / 64
        late = -self.lag * np.log1p(-share)
        return np.mean([drawn(moments - seconds) for seconds in late], axis=0)


def polls(seconds: float, rng: np.random.Generator) -> Floats:
    """Moments of polling from just before 0 until past ``seconds``."""
    steps = POLL * rng.uniform(1 - JITTER, 1 + JITTER, int(seconds / POLL / (1 - JITTER)) + 2)
    times = np.cumsum(steps) - 0.06
    return times[: int(np.searchsorted(times, seconds)) + 1]
