"""Readings over time as arrays, and the energy between two moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Samples:
    """Total watts ``[n]`` at ``times`` ``[n]`` (seconds, monotonic, ascending), and where the
    source has an energy counter its ``joules`` ``[n]``."""

    times: Floats
    watts: Floats
    joules: Floats | None = None

    def __len__(self) -> int:
        return len(self.times)

    def between(self, began: float, ended: float) -> Samples:
        """The samples from ``began`` to ``ended``, with one more on either side where there is
        one, so that both moments can be interpolated."""
        first = max(0, int(np.searchsorted(self.times, began, "right")) - 1)
        last = int(np.searchsorted(self.times, ended, "left")) + 1
        return Samples(
            self.times[first:last],
            self.watts[first:last],
            None if self.joules is None else self.joules[first:last],
        )

    def energy(self, began: float, ended: float) -> float:
        """Joules from ``began`` to ``ended``: the counter's difference, else by trapezoids.

        ValueError where the samples do not reach from one to the other.
        """
        if len(self) < 2 or self.times[0] > began or self.times[-1] < ended:
            raise ValueError(f"the samples do not cover {began:g} to {ended:g} s")
        if self.joules is not None:
            return float(np.diff(np.interp([began, ended], self.times, self.joules))[0])
        inside = (self.times > began) & (self.times < ended)
        times = np.concatenate([[began], self.times[inside], [ended]])
        watts = np.interp(times, self.times, self.watts)
        return float(np.diff(times) @ (watts[1:] + watts[:-1]) / 2)
