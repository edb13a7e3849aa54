"""Admits joules so that the mean power of requests stays within a limit."""

from __future__ import annotations

from math import inf

from delen.core.token_bucket import TokenBucket


class PowerLimiter:
    """A token bucket of joules; without ``set`` it limits nothing.

    A full bucket admits one request of any size: a bucket that is smaller than the least request
    would otherwise admit none.
    """

    def __init__(self) -> None:
        self._bucket: TokenBucket | None = None

    @property
    def watts(self) -> float:
        return 0.0 if self._bucket is None else self._bucket.rate

    @property
    def surplus(self) -> float:
        """Joules above half of the depth, below 0 where there are fewer."""
        return 0.0 if self._bucket is None else self._bucket.tokens - self._bucket.depth / 2

    def set(self, watts: float, depth: float, now: float) -> None:
        """Gain ``watts`` from ``now`` on, up to ``depth`` joules; a new bucket is full."""
        watts, depth = max(watts, 0.0), max(depth, 0.0)
        if self._bucket is None:
            self._bucket = TokenBucket(watts, depth, depth, now)
        else:
            self._bucket.fill(now)
            self._bucket.rate, self._bucket.depth = watts, depth
            self._bucket.fill(now)

    def allowance(self, now: float) -> float:
        bucket = self._bucket
        if bucket is None:
            return inf
        bucket.fill(now)
        if bucket.rate <= 0:
            return 0.0
        return inf if bucket.tokens >= bucket.depth else max(bucket.tokens, 0.0)

    def spend(self, joules: float) -> None:
        if self._bucket is not None:
            self._bucket.spend(joules)

    def wait(self, joules: float) -> float:
        """Seconds until ``joules`` may be spent; infinite where nothing may ever be."""
        bucket = self._bucket
        if bucket is None:
            return 0.0
        return bucket.wait(joules) if bucket.rate > 0 else inf
