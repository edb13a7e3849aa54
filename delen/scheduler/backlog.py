"""How much work waits, and when those who are refused for it may come back."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from delen.errors import Overloaded

DEFAULT_BACKLOG = 2.0
"""Seconds of waiting work beyond which requests are refused, where nothing else is set."""

LONGEST_PROMISE = 60.0
"""Seconds for which room is given away ahead. Who does not come back when told to, but at once, is
given more and more of it; all others wait no longer for that."""

_BATCHED_GAIN = 0.05
_MARGIN = 1.25
"""By which a client is rather told to come late than in vain: batches are not always full."""


@dataclass(slots=True, eq=False)
class _Queue:
    """How many tasks of one bucket wait, and the device seconds that they need alone.

    The room that gets free before ``promised`` is for tasks that were refused before, and told when
    to come back."""

    tasks: int = 0
    seconds: float = 0.0
    promised: float = -inf

    def promise(self, now: float, earliest: float, each: float) -> float:
        """Seconds after which one more task may come, ``earliest`` ones at least; the next one
        ``each`` seconds later."""
        at = max(now + earliest, self.promised)
        self.promised = min(at + each, now + earliest + LONGEST_PROMISE)
        return at - now


class Backlog:
    """The waiting work of each bucket (``Shares``), of which ``most`` seconds may wait in all."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._queues: dict[str, _Queue] = {}
        self._batched = 0.0

    @property
    def seconds(self) -> float:
        """Device seconds that all waiting tasks need alone."""
        return sum(queue.seconds for queue in self._queues.values())

    def add(self, bucket: str, seconds: float) -> None:
        """A task that needs so many ``seconds`` waits."""
        queue = self._queues.get(bucket)
        if queue is None:
            queue = self._queues[bucket] = _Queue()
        queue.tasks += 1
        queue.seconds += seconds

    def remove(self, bucket: str, seconds: float) -> None:
        """One of those that were added waits no more."""
        queue = self._queues[bucket]
        queue.tasks -= 1
        queue.seconds -= seconds
        if not queue.tasks:
            del self._queues[bucket]

    def ran(self, batched: float) -> None:
        """A task took ``batched`` times in a batch what it takes alone."""
        self._batched += _BATCHED_GAIN * (batched - self._batched)

    def pace(self, best: float) -> float:
        """Seconds in which a second of waiting work is done at the latest: in ``best`` by the
        largest batches, or by those of late where a policy runs smaller ones."""
        return _MARGIN * max(best, self._batched)

    def is_over(self, bucket: str, share: float) -> bool:
        """Whether more work of ``bucket`` waits than ``share`` of the most that may."""
        queue = self._queues.get(bucket)
        return queue is not None and queue.seconds > self._most * share

    def refusal(
        self, now: float, tenant: str, bucket: str, share: float, best: float
    ) -> Overloaded:
        """What ``tenant``, booked on ``bucket``, is told where that is over, with the time after
        which it is not. ``best`` as in ``pace``."""
        queue, limit, pace = self._queues[bucket], self._most * share, self.pace(best) / share
        earliest, each = (queue.seconds - limit) * pace, queue.seconds / queue.tasks * pace
        return Overloaded(
            f"{queue.seconds:.2f} s of work wait already for {tenant}, more than {limit:.3g} s",
            retry_after=queue.promise(now, earliest, each),
        )
