"""The mean of one figure of several runs, and how far that may be off."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from power.metering.bootstrap import LEVEL, student


class Mean(NamedTuple):
    """A ``mean``; its 95 % interval reaches ``reach`` to both sides (None: of a single run)."""

    mean: float
    reach: float | None

    @property
    def low(self) -> float:
        return self.mean - (self.reach or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.reach or 0.0)

    def times(self, factor: float) -> Mean:
        """In another unit."""
        return Mean(factor * self.mean, None if self.reach is None else factor * self.reach)

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """By Student's t, of at least one of the ``values``."""
        count = len(values)
        if count == 1:
            return cls(values[0], None)
        tail = (1 + LEVEL) / 2
        return cls(fmean(values), student(tail, count - 1) * stdev(values) / sqrt(count))
