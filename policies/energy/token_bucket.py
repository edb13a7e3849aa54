"""How many joules may be spent at once, so that a mean power is kept."""

from __future__ import annotations

from math import inf


class TokenBucket:
    """A bucket that fills with ``watts`` up to ``depth`` joules; what is spent may leave a debt.

    While it is full, one request of any size may pass: a bucket that is smaller than the least
    request would else let none through.
    """

    def __init__(self) -> None:
        self.watts = 0.0
        self.depth = 0.0
        self._joules: float | None = None
        self._time = 0.0

    @property
    def surplus(self) -> float:
        """Joules above half of the depth, below 0 where there are fewer."""
        return 0.0 if self._joules is None else self._joules - self.depth / 2

    def set(self, watts: float, depth: float, now: float) -> None:
        """Fill with ``watts`` from ``now`` on; a new bucket is full."""
        self._fill(now)
        self.watts, self.depth = max(watts, 0.0), max(depth, 0.0)
        self._joules = self.depth if self._joules is None else min(self._joules, self.depth)

    def allowance(self, now: float) -> float:
        self._fill(now)
        if self._joules is None:
            return inf
        if self.watts <= 0:
            return 0.0
        return inf if self._joules >= self.depth else max(self._joules, 0.0)

    def spend(self, joules: float) -> None:
        if self._joules is not None:
            self._joules -= joules

    def wait(self, joules: float) -> float:
        """Seconds until ``joules`` may be spent; infinite where nothing may ever be."""
        if self._joules is None:
            return 0.0
        if self.watts <= 0:
            return inf
        return max(0.0, min(joules, self.depth) - self._joules) / self.watts

    def _fill(self, now: float) -> None:
        if now <= self._time:
            return
        if self._joules is not None:
            filled = self._joules + self.watts * (now - self._time)
            self._joules = filled if filled < self.depth else self.depth
        self._time = now
