"""Plays a site: cameras, links, nodes and hub, event by event."""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any

from delen.simulate.fleet.client import Client
from delen.simulate.fleet.log import FleetLog, NodeUse
from delen.simulate.fleet.node import Answered, Job, Node
from delen.simulate.fleet.site import Site, inside
from delen.simulate.streams.stream import PATIENCE
from delen.simulate.streams.streams import Arrived, Streams
from policies.fleet.api import Ceiling, Demand, FleetPolicy, Route, Standing

_AROUND = 1e-9


class _Events:
    """What happens when, in order of time."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._pushed = 0
        self.now = 0.0

    def at(self, when: float, what: Callable[..., None], *given: Any) -> None:
        self._pushed += 1
        heappush(self._queue, (when, self._pushed, what, given))

    @property
    def next_at(self) -> float:
        return self._queue[0][0] if self._queue else inf

    def take(self) -> None:
        """Let the next one happen."""
        self.now, _, what, given = heappop(self._queue)
        what(*given)


class FleetRun:
    """One policy at one site. Nodes, links and cameras draw the same for every policy."""

    def __init__(self, site: Site, policy: FleetPolicy, seed: int) -> None:
        self._site, self._policy, self._hub = site, policy, site.hub
        self._events = _Events()
        self._nodes = {
            settings.name: Node(settings, 1000 * seed + number)
            for number, settings in enumerate(site.nodes)
        }
        self._clients = [
            Client(
                settings,
                site.places,
                {
                    node.name: model.points
                    for node in site.nodes
                    for model in node.models
                    if model.served.name == settings.model
                },
                site.seconds,
                1000 * seed + number,
            )
            for number, settings in enumerate(site.clients)
        ]
        self._streams = Streams([client.stream for client in self._clients])
        self._standings: dict[str, Standing] = {}
        self._demands: dict[str, Demand] = {}
        self._decisions: list[float] = []

    def play(self) -> FleetLog:
        events, hub = self._events, self._hub
        for node in self._nodes.values():
            for start, _ in node.settings.down:
                events.at(start, self._fail, node)
            events.at(0.0, self._say, node)
        for client in self._clients:
            settings = client.settings
            for when, place in settings.moves:
                events.at(when, self._move, client, place)
            if settings.start < client.end:
                events.at(max(0.0, settings.start - 2 * hub.delay), self._demand, client)
                events.at(settings.start, self._renew, client)
        events.at(2 * hub.delay, self._coordinate)
        longest = max((client.settings.deadline for client in self._clients), default=0.0)
        until = self._site.seconds + longest + PATIENCE
        streams = self._streams
        while min(streams.next_at, events.next_at) <= until:
            if streams.next_at <= events.next_at:
                if (arrived := streams.take()) is not None:
                    events.now = arrived.at
                    self._arrive(arrived)
            else:
                events.take()
        used = {n: NodeUse(node.busy, node.joules) for n, node in self._nodes.items()}
        ended = [client.ended() for client in self._clients]
        return FleetLog(self._policy.name, self._site, ended, used, self._decisions)

    # Hub

    def _hub_is_up(self) -> bool:
        return not inside(self._hub.down, self._events.now)

    def _say(self, node: Node) -> None:
        now = self._events.now
        if node.is_up(now):
            self._events.at(now + self._hub.delay, self._hear, node.standing(now))
        self._events.at(now + self._hub.standing, self._say, node)

    def _hear(self, standing: Standing) -> None:
        if self._hub_is_up():
            self._standings[standing.node] = standing

    def _demand(self, client: Client) -> None:
        now = self._events.now
        if now < client.end:
            self._events.at(now + self._hub.delay, self._note, client.demand(now))
            self._events.at(now + self._hub.standing, self._demand, client)
        else:
            self._demands.pop(client.settings.name, None)

    def _note(self, demand: Demand) -> None:
        if self._hub_is_up():
            self._demands[demand.client] = demand

    def _coordinate(self) -> None:
        now = self._events.now
        if self._hub_is_up():
            standings, demands = list(self._standings.values()), list(self._demands.values())
            began = time.perf_counter()
            directives = self._policy.coordinate(standings, demands, now)
            self._decisions.append(time.perf_counter() - began)
            for directive in directives:
                node = self._nodes[directive.node]
                self._events.at(now + self._hub.delay, node.obey, directive)
            for client in self._clients:
                if client.settings.start <= now < client.end:
                    self._events.at(now + self._hub.delay, self._renew, client)
        self._events.at(now + self._hub.period, self._coordinate)

    def _renew(self, client: Client) -> None:
        """The client asks the hub for a route."""
        now = self._events.now
        if now >= client.end:
            return
        if self._hub_is_up():
            demand = client.demand(now)
            self._demands[demand.client] = demand
            route = self._policy.route(demand, list(self._standings.values()), now)
            self._events.at(now + self._hub.delay, client.take, route)
        else:
            self._events.at(now + self._hub.delay, self._go_on, client)

    def _go_on(self, client: Client) -> None:
        """No hub: the last good route, else the client's own node."""
        if client.route is None:
            for name in sorted(client.place.local):
                client.take(Route(name, inf, client.settings.deadline, _ANY))

    def _move(self, client: Client, place: str) -> None:
        client.move(place)
        self._renew(client)

    # Frames

    def _arrive(self, arrived: Arrived) -> None:
        now, client = self._events.now, self._clients[arrived.stream]
        settings, sent = client.settings, client.routed.sent[arrived.frame]
        node = self._nodes[sent.node]
        due = client.stream.footage.captured[arrived.frame] + settings.deadline
        due -= client.back(sent.node) + _AROUND
        if arrived.max_latency is not None:
            due = min(due, now + arrived.max_latency)
        job = Job(
            arrived=arrived,
            tenant=settings.tenant,
            model=settings.model,
            size=sent.options[arrived.index].size,
            ceiling=sent.ceiling,
            due=due,
        )
        if not node.is_up(now):
            self._unanswered(node, job)
        elif not node.admit(job, now):
            self._refuse(job)
        else:
            self._start(node)

    def _start(self, node: Node) -> None:
        answers = node.start(self._events.now)
        for answered in answers:
            self._events.at(answered.at, self._leave, node, answered)
        if answers:
            self._events.at(max(each.at for each in answers), self._start, node)

    def _leave(self, node: Node, answered: Answered) -> None:
        job, point = answered.job, answered.point
        client = self._clients[job.arrived.stream]
        if point is None:
            self._refuse(job)
        elif not job.lost and client.reaches(node.settings.name):
            counts = point.accuracy >= client.settings.min_accuracy
            correct = point.accuracy if counts else 0.0
            self._streams.answer(job.arrived, self._events.now, correct, point.exit)

    def _refuse(self, job: Job) -> None:
        client = self._clients[job.arrived.stream]
        if client.stream.back(job.arrived.frame) < inf:
            client.refused.add(job.arrived.frame)
        self._streams.refuse(job.arrived, self._events.now)

    def _fail(self, node: Node) -> None:
        for job in node.fail():
            self._unanswered(node, job)

    def _unanswered(self, node: Node, job: Job) -> None:
        """The connection is refused or broken: the client asks for another node."""
        now, name = self._events.now, node.settings.name
        client = self._clients[job.arrived.stream]
        self._streams.lose(job.arrived, now)
        if client.route is not None and client.route.node == name:
            client.avoid(name, now)
            self._renew(client)


_ANY = Ceiling()


def play(site: Site, policy: FleetPolicy, seed: int = 0) -> FleetLog:
    """All of ``site`` under ``policy``."""
    return FleetRun(site, policy, seed).play()
