"""A client of a simulated site: its camera, its place, and its route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np
from numpy.typing import NDArray

from delen.simulate.fleet.controller import Largest, Routed
from delen.simulate.fleet.site import LARGEST, ClientSettings, Place
from delen.simulate.fleet.uplink import Uplink
from delen.simulate.streams.frames import Frames
from delen.simulate.streams.stream import PATIENCE, Stream, StreamSettings, draw_footage
from policies.client.api import ClientController, FrameOption
from policies.client.link import LinkEstimate
from policies.fleet.api import Ceiling, Demand, LinkState, OperatingPoint, Route, Size
from policies.plugins import make_controller

AVOIDED = 3.0
"""Seconds for which a node that did not answer is left out of a client's demand: until its hub has
missed its standings, too."""

CAUSES = ("no_route", "left_out", "controller", "replaced", "stale", "unanswered")
"""Why a frame has no answer, beside its node's refusal: those of a stream, and that its client has
no route (``no_route``), or one of fewer frames a second (``left_out``)."""

Points = Mapping[str, Sequence[OperatingPoint]]
"""Of each node."""


@dataclass(frozen=True, slots=True, eq=False)
class ClientFrames:
    """What became of a client's frames: beside ``frames`` the ``node`` and ``size`` of each that
    was sent, which were ``refused``, and how many have no answer by cause."""

    frames: Frames
    node: Sequence[str | None]
    size: Sequence[Size | None]
    refused: NDArray[np.bool_]
    dropped: Mapping[str, int]

    @property
    def switches(self) -> int:
        """How often a frame was sent at another size than the one before it."""
        sizes = [size for size, node in zip(self.size, self.node, strict=True) if node is not None]
        return sum(one != other for one, other in pairwise(sizes))


class Client:
    """A stream whose way and options are those of its route. ``points`` are those of its model."""

    def __init__(
        self,
        settings: ClientSettings,
        places: Mapping[str, Place],
        points: Points,
        seconds: float,
        seed: int,
    ) -> None:
        self.settings = settings
        self.end = min(settings.end, seconds)
        self.refused: set[int] = set()
        self._places, self._points = places, points
        self._seconds, self._seed = seconds + PATIENCE, seed
        self._random = np.random.default_rng((seed, 5))
        self._avoided: dict[str, float] = {}
        self._uplinks: dict[str, Uplink] = {}
        self._offered: dict[tuple[str, Ceiling], tuple[FrameOption, ...]] = {}
        self._begun: tuple[str, str] | None = None
        self._network = LinkEstimate()
        self.routed = Routed(settings.controller, settings.fps)
        self._uplink = self._at(settings.place)
        self.stream = self._stream()

    def _stream(self) -> Stream:
        settings = self.settings
        start = settings.start + self._random.uniform(0, 1 / settings.fps)
        played = StreamSettings(
            settings.name,
            next(options for node in self._points if (options := self._options(node, _ANY))),
            settings.fps,
            settings.deadline,
            frames=len(np.arange(start, self.end, 1 / settings.fps)),
            spread=0.0,
            start=start,
        )
        node = next(iter([*self.place.local, *self.place.delays]))
        return Stream(played, self.routed, self._uplink.way(node), draw_footage(played, self._seed))

    @property
    def place(self) -> Place:
        return self._uplink.place

    @property
    def route(self) -> Route | None:
        return self.routed.route

    def _at(self, place: str) -> Uplink:
        if place not in self._uplinks:
            self._uplinks[place] = Uplink(
                self._places[place], self._seconds, self._random, self._seed
            )
        return self._uplinks[place]

    def move(self, place: str) -> None:
        """The client is at another place: its link is a new one."""
        self._uplink.forget()
        self._uplink = self._at(place)
        if self.route is not None:
            self.take(self.route if self.reaches(self.route.node) else None)

    def reaches(self, node: str) -> bool:
        return node in self.place.local or node in self.place.delays

    def avoid(self, node: str, now: float) -> None:
        """``node`` does not answer: it is left out of the demand for a while."""
        self._avoided[node] = now + AVOIDED
        if self.route is not None and self.route.node == node:
            self.take(None)

    def take(self, route: Route | None) -> None:
        """The route from now on. One that leaves the client nothing to send is none."""
        if route is None or not (options := self._options(route.node, route.ceiling)):
            self.routed.route = None
            return
        way = self._uplink.way(route.node)
        if self._begun != (self.place.name, route.node):
            self._begun = self.place.name, route.node
            self._network = LinkEstimate(way.round_trip)
            self.routed.begin(self._controller(route.node))
        self.routed.route = route
        self.stream.begin(options, way, self._network)

    def _controller(self, node: str) -> ClientController:
        if self.settings.controller != LARGEST:
            return make_controller(self.settings.controller)
        least = min(self._points[node], key=lambda point: (point.payload, point.exit))
        return Largest(self._uplink, self._expected, least.latency)

    def _expected(self) -> float:
        return 0.0 if self.route is None else self.route.expected

    def _options(self, node: str, ceiling: Ceiling) -> tuple[FrameOption, ...]:
        """Each size within ``ceiling``, up to its deepest exit there, ascending by payload."""
        if (node, ceiling) not in self._offered:
            deepest: dict[Size | None, OperatingPoint] = {}
            for point in sorted(self._points.get(node, ()), key=lambda point: point.exit):
                if ceiling.allows(point):
                    deepest[point.size] = point
            self._offered[node, ceiling] = tuple(
                FrameOption(each.size, each.payload, each.latency, each.accuracy, each.exit)
                for each in sorted(deepest.values(), key=lambda point: point.payload)
            )
        return self._offered[node, ceiling]

    def demand(self, now: float) -> Demand:
        """What it asks for, with its links as it knows them. One that carried nothing for a while
        is probed."""
        bandwidth, settings = self._uplink.bandwidth(now), self.settings
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

    def back(self, node: str) -> float:
        """Seconds that an answer takes; inf from a node that it does not reach any more."""
        return self._uplink.way(node).round_trip / 2 if self.reaches(node) else inf

    def ended(self) -> ClientFrames:
        """What became of all its frames."""
        frames = self.stream.frames()
        numbers = range(len(frames))
        sent = [self.routed.sent[n] if frames.index[n] >= 0 else None for n in numbers]
        kept_back = self.routed.kept_back
        dropped: dict[str, int] = dict(frames.dropped.items())
        dropped["controller"] = dropped.get("controller", 0) - sum(kept_back.values())
        dropped.update(kept_back)
        return ClientFrames(
            frames,
            [None if each is None else each.node for each in sent],
            [
                None if each is None else each.options[index].size
                for each, index in zip(sent, frames.index.tolist(), strict=True)
            ],
            np.array([n in self.refused for n in numbers], dtype=bool),
            {cause: dropped.get(cause, 0) for cause in CAUSES},
        )


_ANY = Ceiling()
