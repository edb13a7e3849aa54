"""The batches that really run on a simulated device, which slow each other down."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from delen.scheduler.lanes import Batch


class InFlight:
    """``corun[k]``: how many times longer all takes while k other batches run; the last one
    holds for more. The times that it is told may not fall."""

    def __init__(self, corun: Sequence[float]) -> None:
        self._corun = tuple(corun)
        self._left: list[float] = []
        self._batches: list[tuple[float, Batch]] = []
        self._at = 0.0
        self.next_end = inf
        """When the first of them ends, if no other starts before."""

    def __len__(self) -> int:
        return len(self._batches)

    def start(self, now: float, batch: Batch, seconds: float) -> None:
        """``batch`` takes ``seconds`` alone."""
        self._advance(now)
        self._left.append(seconds)
        self._batches.append((now, batch))
        self._look_ahead()

    def end(self) -> tuple[float, Batch]:
        """Take out the one that ends at ``next_end``, and when it started."""
        self._advance(self.next_end)
        first = self._left.index(min(self._left))
        del self._left[first]
        started = self._batches.pop(first)
        self._look_ahead()
        return started

    def _advance(self, now: float) -> None:
        done = (now - self._at) / self._factor()
        self._at = now
        self._left = [max(0.0, left - done) for left in self._left]

    def _look_ahead(self) -> None:
        self.next_end = self._at + min(self._left) * self._factor() if self._left else inf

    def _factor(self) -> float:
        others = len(self._batches) - 1
        return self._corun[others] if others < len(self._corun) else self._corun[-1]
