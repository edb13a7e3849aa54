"""How much work waits, and when tenants that are refused for it may try again."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from delen.errors import Overloaded

DEFAULT_BACKLOG = 2.0
"""Seconds of waiting work beyond which requests are refused, where nothing else is set."""

LONGEST_PROMISE = 60.0
"""How many seconds ahead free capacity is promised. A tenant that tries again at once is promised
more and more of it; the others wait no longer than this for that."""

_BATCHED_GAIN = 0.05
_MARGIN = 1.25
"""Margin on the time until a retry, so that it succeeds: batches are not always full."""


@dataclass(slots=True, eq=False)
class _Queue:
    """How many tasks of one bucket wait, and the device seconds that they need alone. Capacity that
    becomes free before ``promised`` is for retries of tasks that were refused."""

    tasks: int = 0
    seconds: float = 0.0
    promised: float = -inf

    def promise(self, now: float, earliest: float, each: float) -> float:
        """Seconds until one more task may come, at least ``earliest``; the next one may come
        ``each`` seconds later."""
        at = max(now + earliest, self.promised)
        self.promised = min(at + each, now + earliest + LONGEST_PROMISE)
        return at - now


class Backlog:
    """The waiting work of each bucket (``Shares``); ``most`` seconds may wait in all."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._queues: dict[str, _Queue] = {}
        self._batched = 0.0

    @property
    def seconds(self) -> float:
        """Device seconds that all waiting tasks need alone."""
        return sum(queue.seconds for queue in self._queues.values())

    def add(self, bucket: str, seconds: float) -> None:
        """A task that needs ``seconds`` waits."""
        queue = self._queues.get(bucket)
        if queue is None:
            queue = self._queues[bucket] = _Queue()
        queue.tasks += 1
        queue.seconds += seconds

    def remove(self, bucket: str, seconds: float) -> None:
        """A task that was added no longer waits."""
        queue = self._queues[bucket]
        queue.tasks -= 1
        queue.seconds -= seconds
        if not queue.tasks:
            del self._queues[bucket]

    def ran(self, batched: float) -> None:
        """A task took ``batched`` times what it takes alone."""
        self._batched += _BATCHED_GAIN * (batched - self._batched)

    def batching_factor(self, best: float) -> float:
        """What waiting work takes at most, over what it takes alone: ``best`` in the largest
        batches, or as in recent batches if a policy runs smaller ones; with a margin."""
        return _MARGIN * max(best, self._batched)

    def is_over(self, bucket: str, share: float) -> bool:
        """Whether more work of ``bucket`` waits than its ``share`` of what may wait in all."""
        queue = self._queues.get(bucket)
        return queue is not None and queue.seconds > self._most * share

    def refusal(
        self, now: float, tenant: str, bucket: str, share: float, best: float
    ) -> Overloaded:
        """The refusal of ``tenant``, whose ``bucket`` is over its share, with the time until it is
        not. ``best`` as in ``batching_factor``."""
        queue, limit = self._queues[bucket], self._most * share
        factor = self.batching_factor(best) / share
        earliest, each = (queue.seconds - limit) * factor, queue.seconds / queue.tasks * factor
        return Overloaded(
            f"{queue.seconds:.2f} s of work wait already for {tenant}, more than {limit:.3g} s",
            retry_after=queue.promise(now, earliest, each),
        )
