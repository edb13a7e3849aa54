"""The link of a client at one place, and the ways over it to each node."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from delen.simulate.fleet.site import Place
from delen.simulate.streams.link import OVERHEAD, FrameDraws, Link

_WINDOW = 1.0
"""Seconds of which the harmonic mean is a link's bandwidth (Jellyfish)."""

_SHORTEST = 1e-6


class _Sample(NamedTuple):
    """A frame that is ``through`` its link at a time, after ``seconds`` on it."""

    through: float
    payload: float
    seconds: float


class Uplink:
    """Frames to all nodes pass it one after the other. ``seconds`` of its trace are played, from a
    time on that ``chance`` draws."""

    def __init__(
        self, place: Place, seconds: float, chance: np.random.Generator, seed: int
    ) -> None:
        self.place = place
        trace = place.uplink.bandwidth
        spare = trace.end - seconds
        if spare > 0:
            trace = trace.part(chance.uniform(0, spare), seconds)
        self._link = Link(replace(place.uplink, bandwidth=trace), seconds, seed)
        self._samples: deque[_Sample] = deque()
        self._ways: dict[str, _Local | _Remote] = {}

    def forget(self) -> None:
        """The client left the place: what was measured is of no use any more."""
        self._samples.clear()

    def bandwidth(self, now: float) -> float:
        """Bytes a second: the harmonic mean of the last second's frames, or a probe's."""
        samples = self._samples
        while samples and samples[0].through < now - _WINDOW:
            samples.popleft()
        known = [each for each in samples if each.through <= now]
        if known:
            return sum(each.payload for each in known) / sum(each.seconds for each in known)
        return float(self._link.settings.bandwidth.at(np.array([now]))[0])

    def queued(self, now: float) -> float:
        """Bytes on their way that are not through."""
        return sum(each.payload for each in self._samples if each.through > now)

    def send(self, sent: float, size: float, given_up: float, draws: FrameDraws) -> float:
        """When ``size`` bytes are at the nearest node; inf if they do not arrive."""
        began = max(sent, self._link.free)
        arrived = self._link.send(sent, size, given_up, draws)
        passed = max(self._link.free - began, _SHORTEST)
        self._samples.append(_Sample(self._link.free, size + OVERHEAD, passed))
        return arrived - self._link.settings.delay

    def way(self, node: str) -> _Local | _Remote:
        """The way to a node that the place reaches."""
        if node not in self._ways:
            local = node in self.place.local
            self._ways[node] = _Local() if local else _Remote(self, self.place.delays[node])
        return self._ways[node]


class _Local:
    """No network between."""

    round_trip = 0.0

    def send(self, sent: float, size: float, given_up: float, draws: FrameDraws) -> float:
        return sent

    def back(self, draws: FrameDraws) -> float:
        return 0.0


class _Remote:
    """Over an uplink, and ``delay`` seconds each way."""

    def __init__(self, uplink: Uplink, delay: float) -> None:
        self._uplink, self._delay = uplink, delay
        self.round_trip = 2 * delay

    def send(self, sent: float, size: float, given_up: float, draws: FrameDraws) -> float:
        return self._uplink.send(sent, size, given_up, draws) + self._delay

    def back(self, draws: FrameDraws) -> float:
        return self._delay
