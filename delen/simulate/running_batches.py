"""The batches that run on a simulated device, which slow each other down."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from delen.scheduler.lanes import Batch


class RunningBatches:
    """``interference[k]``: how many times longer everything takes while k other batches run; the
    last one also holds for more. Times may not fall."""

    def __init__(self, interference: Sequence[float]) -> None:
        self._interference = tuple(interference)
        self._left: list[float] = []
        self._started: list[tuple[float, Batch]] = []
        self._at = 0.0
        self._factor = 1.0
        self._first = 0
        self.next_end = inf
        """When the first batch ends, if no other starts before."""

    def __len__(self) -> int:
        return len(self._left)

    def start(self, now: float, batch: Batch, seconds: float) -> None:
        """``batch`` takes ``seconds`` alone."""
        self._advance(now)
        self._left.append(seconds)
        self._started.append((now, batch))
        self._look_ahead()

    def end(self) -> tuple[float, Batch]:
        """Take out the batch that ends at ``next_end``: when it started, and the batch."""
        now, left, first = self.next_end, self._left, self._first
        del left[first]
        if left:
            self._advance(now)
            self._look_ahead()
        else:
            self.next_end = inf
        return self._started.pop(first)

    def _advance(self, now: float) -> None:
        if self._left:
            done = (now - self._at) / self._factor
            self._left = [max(0.0, left - done) for left in self._left]
        self._at = now

    def _look_ahead(self) -> None:
        left, factors = self._left, self._interference
        self._factor = factors[len(left) - 1] if len(left) < len(factors) else factors[-1]
        least = left[0] if len(left) == 1 else min(left)
        self._first = left.index(least)
        self.next_end = self._at + least * self._factor
