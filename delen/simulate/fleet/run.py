"""Plays a site: cameras, links, nodes and hub, event by event."""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any

from delen.simulate.fleet.client import PATIENCE, Client
from delen.simulate.fleet.log import Fate, FleetLog
from delen.simulate.fleet.node import Answered, Job, Node
from delen.simulate.fleet.site import Site, inside
from policies.fleet.api import Ceiling, Demand, FleetPolicy, OperatingPoint, Route, Standing

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

    def run(self, until: float) -> None:
        while self._queue and self._queue[0][0] <= until:
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
            Client(settings, site.places, site.seconds, 1000 * seed + number)
            for number, settings in enumerate(site.clients)
        ]
        self._standings: dict[str, Standing] = {}
        self._demands: dict[str, Demand] = {}
        self._pending: dict[int, Client] = {}
        self._sizes = {
            (node.name, model.served.name): _first_exits(model.points)
            for node in site.nodes
            for model in node.models
        }
        self.log = FleetLog(policy.name, site)

    def play(self) -> FleetLog:
        events, hub = self._events, self._hub
        for node in self._nodes.values():
            for start, _ in node.settings.down:
                events.at(start, self._fail, node)
            events.at(0.0, self._say, node)
        for number, client in enumerate(self._clients):
            settings = client.settings
            for when, place in settings.moves:
                events.at(when, self._move, client, place)
            if settings.start < client.end:
                events.at(max(0.0, settings.start - 2 * hub.delay), self._demand, client)
                events.at(settings.start, self._renew, client)
            for captured in client.capture_times():
                events.at(captured, self._capture, number, client)
        events.at(2 * hub.delay, self._coordinate)
        events.run(self._site.seconds + PATIENCE)
        for node in self._nodes.values():
            self.log.used(node.settings.name, node.busy, node.joules)
        return self.log

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
            self.log.decided(time.perf_counter() - began)
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
            self._events.at(now + self._hub.delay, self._take, client, route)
        else:
            self._events.at(now + self._hub.delay, self._go_on, client)

    def _take(self, client: Client, route: Route | None) -> None:
        client.route = route

    def _go_on(self, client: Client) -> None:
        """No hub: the last good route, else the client's own node."""
        if client.route is None:
            for name in sorted(client.place.local):
                client.route = Route(name, inf, client.settings.deadline, _ANY)

    def _move(self, client: Client, place: str) -> None:
        client.move(place)
        if client.route is not None and client.route.node not in {
            *client.place.delays,
            *client.place.local,
        }:
            client.route = None
        self._renew(client)

    # Frames

    def _capture(self, number: int, client: Client) -> None:
        now, route = self._events.now, client.route
        frame = self.log.captured(number, now)
        if route is None:
            self.log.dropped(frame, Fate.NO_ROUTE)
            return
        if client.in_flight >= client.most_in_flight:
            self.log.dropped(frame, Fate.FULL)
            return
        model = client.settings.model
        firsts = self._sizes.get((route.node, model), ())
        points = [point for point in firsts if route.ceiling.allows(point)]
        point = client.choose(points, route, now) if points else None
        if point is None:
            self.log.dropped(frame, Fate.NOT_SENT)
            return
        client.in_flight += 1
        self._pending[frame] = client
        arrives = client.send(point.payload, route.node, now)
        job = Job(
            frame=frame,
            client=number,
            tenant=client.settings.tenant,
            model=model,
            size=point.size,
            ceiling=route.ceiling,
            due=now + client.settings.deadline - client.back(route.node) - _AROUND,
        )
        self.log.sent(frame, route.node)
        if arrives < inf:
            self._events.at(arrives, self._arrive, self._nodes[route.node], job)
        self._events.at(now + PATIENCE, self._give_up, frame)

    def _arrive(self, node: Node, job: Job) -> None:
        now = self._events.now
        if not node.is_up(now):
            self._unanswered(node, job)
        elif not node.admit(job, now):
            self._refuse(node, job)
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
        if job.frame not in self._pending:
            return
        if point is None:
            self._refuse(node, job)
        elif not job.lost:
            back = self._clients[job.client].back(node.settings.name)
            if back < inf:
                self._events.at(self._events.now + back, self._answer, job, point)

    def _answer(self, job: Job, point: OperatingPoint) -> None:
        if (client := self._pending.pop(job.frame, None)) is not None:
            client.in_flight -= 1
            self.log.answered(job.frame, self._events.now, point)

    def _refuse(self, node: Node, job: Job) -> None:
        if (client := self._pending.pop(job.frame, None)) is not None:
            client.in_flight -= 1
            self.log.dropped(job.frame, Fate.REFUSED)

    def _fail(self, node: Node) -> None:
        for job in node.fail():
            self._unanswered(node, job)

    def _unanswered(self, node: Node, job: Job) -> None:
        """The connection is refused or broken: the client asks for another node."""
        if (client := self._pending.pop(job.frame, None)) is None:
            return
        client.in_flight -= 1
        self.log.dropped(job.frame, Fate.LOST)
        name = node.settings.name
        if client.route is not None and client.route.node == name:
            client.avoid(name, self._events.now)
            self._renew(client)

    def _give_up(self, frame: int) -> None:
        if (client := self._pending.pop(frame, None)) is not None:
            client.in_flight -= 1
            self.log.dropped(frame, Fate.LOST)


_ANY = Ceiling(10**6)


def _first_exits(points: tuple[OperatingPoint, ...]) -> tuple[OperatingPoint, ...]:
    """The first exit of each size, ascending by payload."""
    firsts: dict[Any, OperatingPoint] = {}
    for point in points:
        known = firsts.get(point.size)
        if known is None or point.exit < known.exit:
            firsts[point.size] = point
    return tuple(sorted(firsts.values(), key=lambda point: point.payload))


def play(site: Site, policy: FleetPolicy, seed: int = 0) -> FleetLog:
    """All of ``site`` under ``policy``."""
    return FleetRun(site, policy, seed).play()
