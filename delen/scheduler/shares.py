"""What each tenant may have of the device: token buckets of device seconds, by weight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

MEMORY = 10.0
"""A tenant counts for so many seconds after its last request; then the others share its part."""

BURST = 0.1
REQUESTS = 32
"""A tenant may use so many seconds of its own share at once, or so many requests where these take
longer: on a slow device two requests sent close together are no flood."""

_FORGOTTEN = 0.98
"""The longest of the latest requests counts for this much less with every other one."""


@dataclass(slots=True, eq=False)
class _Bucket:
    """``tokens`` are device seconds at the moment when the device's clock said ``filled``."""

    weight: float
    tokens: float
    filled: float
    seen: float


class Shares:
    """Who is within its share.

    The device's seconds are dealt out in proportion to the weights of the tenants that sent
    something lately. What one tenant does not use is not kept from others, who may use it but are
    then ``behind`` those within their shares. An only tenant is never behind.

    ``weights`` are above 0, 1 for tenants not named; ``lanes`` are the seconds of work that the
    device does a second. Times are on the caller's clock and may not fall.
    """

    def __init__(self, weights: Mapping[str, float] | None = None, lanes: int = 1) -> None:
        self._weights = dict(weights or {})
        self._lanes = lanes
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._sum = 0.0
        self._dealt = 0.0
        self._now = 0.0
        self._longest = 0.0
        if any(not weight > 0 for weight in self._weights.values()):
            raise ValueError(f"weights are {self._weights}; all must be above 0")

    def weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)

    def set_weight(self, tenant: str, weight: float) -> None:
        """From now on ``tenant`` has ``weight``, above 0 (else ValueError)."""
        if not weight > 0:
            raise ValueError(f"the weight of {tenant} is {weight}; it must be above 0")
        self._weights[tenant] = weight
        bucket = self._buckets.get(tenant)
        if bucket is not None:
            self._fill(bucket)
            self._sum += weight - bucket.weight
            bucket.weight = weight

    def share(self, tenant: str) -> float:
        """The part of the device that is dealt to ``tenant``, 0 to 1."""
        weight = self.weight(tenant)
        total = self._sum if tenant in self._buckets else self._sum + weight
        return weight / total

    def take(self, now: float, tenant: str, seconds: float) -> bool:
        """Book ``seconds`` of work for a request of ``tenant`` if that is within its share.

        False if it is not: then the request is behind, and nothing is booked.
        """
        self._advance(now)
        self._longest = max(seconds, _FORGOTTEN * self._longest)
        bucket = self._buckets.get(tenant)
        if bucket is None:
            weight = self.weight(tenant)
            self._sum += weight
            bucket = _Bucket(weight, 0.0, self._dealt, now)
            bucket.tokens = self._depth(bucket)
            self._buckets[tenant] = bucket
        else:
            bucket.seen = now
            self._buckets.move_to_end(tenant)
            self._fill(bucket)
        if bucket.tokens <= 0 and len(self._buckets) > 1:
            return False  # excess costs nothing, so that it is not paid for when it has gone
        bucket.tokens -= seconds
        return True

    def is_behind(self, now: float, tenant: str) -> bool:
        """Whether a request of ``tenant`` would be."""
        self._advance(now)
        bucket = self._buckets.get(tenant)
        if bucket is None or len(self._buckets) == 1:
            return False
        self._fill(bucket)
        return bucket.tokens <= 0

    def settle(self, tenant: str, booked: float, used: float) -> None:
        """A request for which ``booked`` seconds were taken has ended and took ``used``."""
        bucket = self._buckets.get(tenant)
        if bucket is not None:
            bucket.tokens += booked - used

    def _depth(self, bucket: _Bucket) -> float:
        share = self._lanes * bucket.weight / self._sum
        return max(BURST * share, REQUESTS * self._longest)

    def _fill(self, bucket: _Bucket) -> None:
        """Debts are limited as savings are: nobody pays for long for the time when it was alone."""
        depth = self._depth(bucket)
        tokens = max(-depth, bucket.tokens) + bucket.weight * (self._dealt - bucket.filled)
        bucket.tokens = min(depth, tokens)
        bucket.filled = self._dealt

    def _advance(self, now: float) -> None:
        """Deal out the seconds since the last call, and forget tenants that are long gone."""
        now = max(now, self._now)
        if self._sum > 0:
            self._dealt += (now - self._now) * self._lanes / self._sum
        self._now = now
        while self._buckets:
            tenant, bucket = next(iter(self._buckets.items()))
            if now - bucket.seen <= MEMORY:
                break
            del self._buckets[tenant]
            self._sum = self._sum - bucket.weight if self._buckets else 0.0
