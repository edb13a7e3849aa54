"""The links to nodes, as a client's own answers show them.

The daemon's time in a receipt runs from the first byte of a request to the leaving of its answer.
What a client waits beyond that is the round trip of the link, which Jellyfish's error-based filter
smooths. The body arrives within the daemon's time, for the seconds of ``receiving``. Those can be
longer than the link needs, where the daemon is slow to read, so the least of the last answers
counts. Jellyfish's link estimate makes the bandwidth of both.
"""

from __future__ import annotations

from collections import deque

from delen.core.result import Receipt
from delen.wire.fleet import Link
from delen.wire.message import Megabits, Milli
from policies.client.error_filter import ErrorFilter
from policies.client.link import LinkEstimate

BELIEVED = 10.0
"""Seconds for which what is known of a link is believed. Afterwards it is unknown again, so that a
link that was slow is tried once more."""

LEAST_PAYLOAD = 16_384
"""Bytes from which on a body shows the bandwidth; smaller ones come with their first packets."""

_COMPARED = 8


class LinkView:
    """What is known of the link to one node."""

    def __init__(self) -> None:
        self._round_trip = ErrorFilter()
        self._bandwidth: float | None = None
        self._uploads: deque[tuple[int, float]] = deque(maxlen=_COMPARED)
        self._until = 0.0

    def learn(self, payload: int, elapsed: float, receipt: Receipt, now: float) -> None:
        """A body of ``payload`` bytes was answered after ``elapsed`` seconds; of a batch, the
        ``receipt`` is that of the sample that took longest."""
        if now > self._until:
            self._round_trip.reset()
            self._uploads.clear()
            self._bandwidth = None
        self._until = now + BELIEVED
        round_trip = self._round_trip.learn(max(0.0, elapsed - receipt.latency.value))
        if payload < LEAST_PAYLOAD or receipt.receiving is None:
            return
        self._uploads.append((payload, receipt.receiving))
        upload = min(seconds for size, seconds in self._uploads if size == payload)
        estimate = LinkEstimate(round_trip)
        estimate.learn(0, payload, upload + round_trip)
        self._bandwidth = estimate.bandwidth

    def round_trip(self, now: float) -> float | None:
        """Seconds that a message of no size takes there and back; None where that is unknown."""
        return self._round_trip.value if now <= self._until else None

    def message(self, now: float) -> Link | None:
        """The link as a hub is told of it; None where it is unknown."""
        round_trip = self.round_trip(now)
        if round_trip is None:
            return None
        bandwidth = None if self._bandwidth is None else Megabits(self._bandwidth)
        return Link(bandwidth=bandwidth, delay=Milli(round_trip / 2))
