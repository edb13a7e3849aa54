"""A client of a simulated site: what it sends of its frames, and what it knows of its links."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, inf
from typing import NamedTuple

import numpy as np

from delen.simulate.fleet.site import ClientSettings, Place
from delen.simulate.streams.link import OVERHEAD, FrameDraws, Link
from policies.fleet.api import Demand, LinkState, OperatingPoint, Route

_WINDOW = 1.0
"""Seconds of which the harmonic mean is a link's bandwidth (Jellyfish)."""

PATIENCE = 1.0
"""Seconds after which a frame is given up."""

AVOIDED = 3.0
"""Seconds for which a node that did not answer is left out of a client's demand: until its hub has
missed its standings, too."""


_ROUNDING = 1e-9
_SHORTEST = 1e-6


class _Sample(NamedTuple):
    """A frame that is ``through`` its link at a time, after ``seconds`` on it."""

    through: float
    payload: float
    seconds: float


class Client:
    """Sends each frame as large as its route allows and its link can carry in time."""

    def __init__(
        self, settings: ClientSettings, places: Mapping[str, Place], seconds: float, seed: int
    ) -> None:
        self.settings = settings
        self.end = min(settings.end, seconds)
        self.route: Route | None = None
        self.in_flight = 0
        self._places = places
        self._links: dict[str, Link] = {}
        self._seconds = seconds
        self._seed = seed
        self._random = np.random.default_rng((seed, 5))
        self._samples: deque[_Sample] = deque()
        self._avoided: dict[str, float] = {}
        self._credit = 1.0
        self.place = places[settings.place]
        self.move(settings.place)

    @property
    def most_in_flight(self) -> int:
        return ceil(self.settings.deadline * self.settings.fps) + 1

    def move(self, place: str) -> None:
        """The client is at another place: its link is a new one."""
        self.place = self._places[place]
        self._samples.clear()
        if place not in self._links:
            uplink = self.place.uplink
            trace = uplink.bandwidth
            spare = trace.end - self._seconds - PATIENCE
            if spare > 0:
                trace = trace.part(self._random.uniform(0, spare), self._seconds + PATIENCE)
            settings = replace(uplink, bandwidth=trace)
            self._links[place] = Link(settings, self._seconds + PATIENCE, self._seed)

    def capture_times(self) -> list[float]:
        """When its frames are captured: at its rate, from a time within the first period on."""
        settings = self.settings
        period = 1 / settings.fps
        start = settings.start + self._random.uniform(0, period)
        return np.arange(start, self.end, period).tolist()  # type: ignore[no-any-return]

    def avoid(self, node: str, now: float) -> None:
        """``node`` does not answer: it is left out of the demand for a while."""
        self._avoided[node] = now + AVOIDED
        if self.route is not None and self.route.node == node:
            self.route = None

    def demand(self, now: float) -> Demand:
        """What it asks for, with its links as it knows them. One that carried nothing for a while
        is probed."""
        bandwidth, settings = self.bandwidth(now), self.settings
        links = {node: LinkState(bandwidth, delay) for node, delay in self.place.delays.items()} | {
            node: LinkState() for node in self.place.local
        }
        up = {node: link for node, link in links.items() if self._avoided.get(node, 0.0) <= now}
        return Demand(
            settings.name,
            settings.model,
            settings.fps,
            settings.deadline,
            up,
            settings.tenant,
            settings.min_accuracy,
        )

    def bandwidth(self, now: float) -> float:
        """Bytes a second: the harmonic mean of the last second's frames, or a probe's."""
        samples = self._samples
        while samples and samples[0].through < now - _WINDOW:
            samples.popleft()
        known = [each for each in samples if each.through <= now]
        if known:
            return sum(each.payload for each in known) / sum(each.seconds for each in known)
        trace = self._links[self.place.name].settings.bandwidth
        return float(trace.at(np.array([now]))[0])

    def choose(
        self, points: Sequence[OperatingPoint], route: Route, captured: float
    ) -> OperatingPoint | None:
        """The largest payload that arrives early enough for an answer, behind what is on its way
        already; else the smallest, if an idle node would answer that in time, or None. ``points``
        ascend by payload."""
        self._credit = min(1.0, self._credit + route.rate / self.settings.fps)
        if self._credit < 1 - _ROUNDING:
            return None
        self._credit -= 1.0
        if route.node in self.place.local:
            return points[-1]
        bandwidth = self.bandwidth(captured)
        queued = sum(each.payload for each in self._samples if each.through > captured)
        left = self.settings.deadline - 2 * self.place.delays[route.node] - route.expected
        fitting = None
        for point in points:
            if point.payload + queued <= left * bandwidth:
                fitting = point
        if fitting is None:
            idle = left + route.expected - points[0].latency
            fitting = points[0] if points[0].payload + queued <= idle * bandwidth else None
        return fitting

    def send(self, payload: float, node: str, now: float) -> float:
        """When a frame reaches ``node``; inf if it does not."""
        if node in self.place.local:
            return now
        link = self._links[self.place.name]
        began = max(now, link.free)
        jitter = self._random.standard_exponential(2)
        lost = self._random.random(2)
        draws = FrameDraws(1.0, float(jitter[0]), float(jitter[1]), (lost[0], lost[1]))
        arrived = link.send(now, payload, now + PATIENCE, draws)
        passed = max(link.free - began, _SHORTEST)
        self._samples.append(_Sample(link.free, payload + OVERHEAD, passed))
        return arrived + self.place.delays[node] - link.settings.delay

    def back(self, node: str) -> float:
        """Seconds that an answer takes; inf from a node that it does not reach any more."""
        return 0.0 if node in self.place.local else self.place.delays.get(node, inf)
