"""The simulated host: the daemon's own code, which runs beside the lanes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

from delen.simulate.device import DeviceSettings


class Host:
    """The time that the daemon's own code takes. Times are in seconds.

    It does one thing after the other, as Python does; ``slowness`` says how many times longer one
    takes, by its start (None: it is never slow). What is ready first goes first; but before a batch
    that has ended and waits for the host, at most as many requests and replies go as there are
    readers.
    """

    def __init__(
        self, settings: DeviceSettings, slowness: Callable[[float], float] | None = None
    ) -> None:
        self.free = 0.0
        """When everything that it has begun is done."""
        self._slowness = slowness
        self._reading, self._replying = settings.front
        self._reading_crowded, self._replying_crowded = settings.crowded or settings.front
        self._readers = settings.readers
        self._passed = 0
        self._replies: deque[float] = deque()
        self.next_reply = inf
        """Since when the oldest reply waits to be sent; inf if none does."""

    def is_overdue(self, ended: float) -> bool:
        """Whether a batch that ``ended`` goes before everything else now."""
        return self._passed >= self._readers and ended <= self.free

    def occupy(self, ready: float, seconds: float) -> float:
        """Do what is ``ready`` then and takes ``seconds``; returns when it is done."""
        began = ready if ready > self.free else self.free
        if self._slowness is not None:
            seconds *= self._slowness(began)
        self.free = began + seconds
        return self.free

    def read(self, ready: float, ended: float) -> float:
        """Read a request; the next batch ends, or has ended, at ``ended``."""
        self._passed += ended <= self.free
        reading = self._reading_crowded if self.free > ready else self._reading
        return self.occupy(ready, reading)

    def decide(self, ended: float, seconds: float) -> float:
        """Decide about the samples of the batch that ``ended``."""
        self._passed = 0
        return self.occupy(ended, seconds)

    def answer(self, ready: float, seconds: float) -> None:
        """Write an answer, whose reply then waits to be sent."""
        written = self.occupy(ready, seconds)
        if self._replying:
            self._replies.append(written)
            self.next_reply = self._replies[0]

    def reply(self, ended: float) -> None:
        """Send the oldest reply; ``ended`` as in ``read``."""
        self._passed += ended <= self.free
        written = self._replies.popleft()
        self.next_reply = self._replies[0] if self._replies else inf
        crowded = self.free > written
        self.occupy(written, self._replying_crowded if crowded else self._replying)
