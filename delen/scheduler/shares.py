"""What each tenant may have of the device: token buckets of device seconds, by weight, and how
urgent its requests may be."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple

from delen.core.bounds import DEFAULT_PRIORITY
from delen.core.token_bucket import TokenBucket

MEMORY = 10.0
"""A tenant counts for so many seconds after its last request; then the others share its part."""

BURST = 0.1
REQUESTS = 32
"""A tenant may use so many seconds of its own share at once, or so many requests where these take
longer: on a slow device two requests sent close together are no flood."""

_FORGOTTEN = 0.98
"""The longest of the latest requests counts for this much less with every other one."""

START = 0.1
FEW = 4
"""Of that a tenant has so much when it comes, or what a few requests like its first take; the rest
it saves up. So a flood does not begin with a rush within its share."""

MOST_UNSET = 10
"""So many tenants that nobody gave a weight have a share of their own at once."""

NEWCOMERS = 1000
"""So many names on REST are known again at their next request."""

REST = ""
"""The bucket of all other tenants, by a name that none can have."""


@dataclass(slots=True, eq=False)
class _Bucket(TokenBucket):
    """A tenant's device seconds. Its ``rate`` is the tenant's weight, its time the seconds dealt
    out to each unit of weight. The tenant was last ``seen`` at a time on the caller's clock; the
    bucket ``is_new`` until a request is booked on it."""

    seen: float = 0.0
    is_new: bool = True


class Booking(NamedTuple):
    """Where the work of a request was booked, and whether: if not ``within``, nothing was. Its
    tenant ``is_second`` if it is the first beside an only other one."""

    bucket: str
    within: bool
    is_second: bool


class Shares:
    """Who is within its share.

    The device's seconds are dealt out in proportion to the weights of the tenants that sent
    something lately. What one tenant does not use is not kept from others, who may use it but are
    then ``behind`` those within their shares. An only tenant is never behind.

    Names cost nothing, so that one app could have as many shares as it invents names. Therefore
    only tenants in ``weights`` have theirs whatever happens. Of the others, which weigh 1,
    ``MOST_UNSET`` have their own at once, and of those that sent a single request one; the rest
    together have one.

    Nor does an app come before others by asking to: ``priorities`` are the most urgent ones that
    tenants may have beside others, ``DEFAULT_PRIORITY`` where none is set.

    ``weights`` are above 0; ``lanes`` are the seconds of work that the device does a second. Times
    are on the caller's clock and may not fall.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        lanes: int = 1,
        priorities: Mapping[str, int] | None = None,
    ) -> None:
        self._weights = dict(weights or {})
        self._priorities = dict(priorities or {})
        self._lanes = lanes
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._newcomers: OrderedDict[str, None] = OrderedDict()
        self._unconfirmed: str | None = None
        self._sum = 0.0
        self._dealt = 0.0
        self._now = 0.0
        self._longest = 0.0
        if any(not 0 < weight < inf for weight in self._weights.values()):
            raise ValueError(f"weights are {self._weights}; all must be above 0 and finite")

    def weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)

    def set_weight(self, tenant: str, weight: float | None) -> None:
        """From now on ``tenant`` has ``weight``, above 0 (else ValueError), or, with None, is as
        one that nobody gave a weight."""
        if weight is None:
            self._weights.pop(tenant, None)
        elif 0 < weight < inf:
            self._weights[tenant] = weight
        else:
            raise ValueError(f"the weight of {tenant} is {weight}; it must be above 0 and finite")
        bucket = self._buckets.get(tenant)
        if bucket is not None:
            self._fill(bucket)
            self._sum += self.weight(tenant) - bucket.rate
            bucket.rate = self.weight(tenant)

    def set_priority(self, tenant: str, priority: int | None) -> None:
        """From now on requests of ``tenant`` have ``priority`` if they name none, and no more
        urgent one; None for a tenant of which nothing is said."""
        if priority is None:
            self._priorities.pop(tenant, None)
        else:
            self._priorities[tenant] = priority

    def priority(self, tenant: str, asked: int | None) -> int:
        """That of a request of ``tenant`` which names ``asked``. An only tenant that was given none
        has what it asks: it puts its own requests in order."""
        given = self._priorities.get(tenant)
        if asked is None:
            return DEFAULT_PRIORITY if given is None else given
        if given is None and not self._has_others(tenant):
            return asked
        return max(asked, DEFAULT_PRIORITY if given is None else given)

    def knows(self, tenant: str) -> bool:
        """Whether ``tenant`` has a bucket of its own now. It may be called beside all else."""
        return tenant in self._weights or tenant in self._buckets

    def bucket_of(self, tenant: str) -> str:
        """The name of the bucket that the requests of ``tenant`` are booked on: its own or REST."""
        if self.knows(tenant):
            return tenant
        if self._unconfirmed is not None and tenant not in self._newcomers:
            return REST
        unset = sum(name not in self._weights for name in self._buckets if name != REST)
        return tenant if unset < MOST_UNSET else REST

    def share(self, tenant: str) -> float:
        """The part of the device that is dealt to ``tenant``, 0 to 1."""
        return self.share_of_bucket(self.bucket_of(tenant))

    def share_of_bucket(self, name: str) -> float:
        """The part of the device that is dealt to all whose requests are booked on ``name``."""
        weight = self.weight(name)
        total = self._sum if name in self._buckets else self._sum + weight
        return weight / total

    def enter(self, now: float, tenant: str) -> tuple[bool, bool]:
        """``tenant`` asks for something, whatever comes of it: from now on it has a share. Whether
        it is the first beside an only other one, and whether a request of it would be behind."""
        _, bucket, is_second = self._enter(now, tenant)
        return is_second, bucket.tokens <= 0 and len(self._buckets) > 1

    def take(self, now: float, tenant: str, seconds: float) -> Booking:
        """Book ``seconds`` of work for a request of ``tenant``, which enters, if that is within its
        share; if it is not, the request is behind."""
        name, bucket, is_second = self._enter(now, tenant)
        self._longest = max(seconds, _FORGOTTEN * self._longest)
        self._fill(bucket)
        self._meet(tenant, name)
        if bucket.is_new:
            bucket.is_new = False
            bucket.tokens = max(bucket.tokens, min(self._depth(bucket, self._sum), FEW * seconds))
        within = bucket.tokens > 0 or len(self._buckets) == 1
        if within:  # excess costs nothing: nobody pays when it has gone
            bucket.spend(seconds)
        return Booking(name, within, is_second)

    def behind(self, now: float, tenants: Iterable[str]) -> set[str]:
        """Those of ``tenants`` whose requests would be; asking changes nothing."""
        present = [bucket for bucket in self._buckets.values() if now - bucket.seen <= MEMORY]
        if len(present) < 2:
            return set()
        weights = sum(bucket.rate for bucket in present)
        dealt = self._dealt + max(0.0, now - self._now) * self._lanes / self._sum
        empty = set()
        for bucket in present:
            then = replace(bucket)
            then.depth = then.most_debt = self._depth(then, weights)
            then.fill(dealt)
            if then.tokens <= 0:
                empty.add(id(bucket))
        return {name for name in tenants if id(self._buckets.get(self.bucket_of(name))) in empty}

    def charge(self, now: float, tenant: str, seconds: float) -> None:
        """``tenant``, which enters, has used ``seconds`` beside those of its requests."""
        _, bucket, _ = self._enter(now, tenant)
        self._fill(bucket)
        bucket.spend(seconds)

    def settle(self, name: str, booked: float, used: float) -> None:
        """A request for which ``booked`` seconds were taken from the bucket ``name`` has ended and
        took ``used``."""
        bucket = self._buckets.get(name)
        if bucket is not None:
            bucket.spend(used - booked)

    def _enter(self, now: float, tenant: str) -> tuple[str, _Bucket, bool]:
        """The name of the bucket of ``tenant``, the bucket filled up to now, and whether it is the
        first beside an only other one."""
        self._advance(now)
        alone = len(self._buckets) == 1
        name = self.bucket_of(tenant)
        bucket = self._open(now, name)
        return name, bucket, alone and len(self._buckets) > 1

    def _has_others(self, tenant: str) -> bool:
        if tenant in self._buckets:
            return len(self._buckets) > 1
        own = len(self._buckets) - (REST in self._buckets)
        return own > 0 or any(name != tenant for name in self._newcomers)

    def _meet(self, tenant: str, name: str) -> None:
        """Keep who is booked on REST, and whose first request was its last so far."""
        if name == REST:
            self._newcomers[tenant] = None
            if len(self._newcomers) > NEWCOMERS:
                self._newcomers.popitem(last=False)
        elif tenant in self._newcomers:
            del self._newcomers[tenant]
            if not self._newcomers:
                self._forget(REST)
        elif tenant == self._unconfirmed:
            if not self._buckets[tenant].is_new:
                self._unconfirmed = None

    def _open(self, now: float, name: str) -> _Bucket:
        """The bucket ``name``, filled up to now."""
        bucket = self._buckets.get(name)
        if bucket is None:
            weight = self.weight(name)
            self._sum += weight
            bucket = _Bucket(weight, 0.0, 0.0, self._dealt, seen=now)
            self._buckets[name] = bucket
            bucket.tokens = START * self._depth(bucket, self._sum)
            if name != REST and name not in self._weights and name not in self._newcomers:
                self._unconfirmed = name
        else:
            bucket.seen = now
            self._buckets.move_to_end(name)
            if bucket.filled < self._dealt:
                self._fill(bucket)
        return bucket

    def _forget(self, name: str) -> None:
        del self._buckets[name]
        self._sum = sum(bucket.rate for bucket in self._buckets.values())
        if name == REST:
            self._newcomers.clear()
        elif name == self._unconfirmed:
            self._unconfirmed = None

    def _depth(self, bucket: _Bucket, weights: float) -> float:
        share = self._lanes * bucket.rate / weights
        saved, few = BURST * share, REQUESTS * self._longest
        return saved if saved > few else few

    def _fill(self, bucket: _Bucket) -> None:
        """Debts are limited as savings are: nobody pays for long for the time when it was alone."""
        bucket.depth = bucket.most_debt = self._depth(bucket, self._sum)
        bucket.fill(self._dealt)

    def _advance(self, now: float) -> None:
        """Deal out the seconds since the last call, and forget tenants that are long gone."""
        if now <= self._now:
            return
        if self._sum > 0:
            self._dealt += (now - self._now) * self._lanes / self._sum
        self._now = now
        while self._buckets:
            name, bucket = next(iter(self._buckets.items()))
            if now - bucket.seen <= MEMORY:
                break
            self._forget(name)
