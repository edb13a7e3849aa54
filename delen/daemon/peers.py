"""Other daemons, over HTTP, that go on with jobs whose bounds cannot be kept here."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf
from urllib.parse import urlsplit

from delen.bundle.features import encoded_size
from delen.core.bounds import DEFAULT_ENCODING, Bounds, check_name
from delen.core.handover import Suspended, Way
from delen.core.result import Result
from delen.daemon.node_caller import NodeCaller
from delen.engine.model import Model
from delen.errors import ConfigError, DaemonUnreachable, InvalidInput
from delen.sdk.client import Client
from delen.sdk.http import Endpoint
from policies.fleet.api import LinkState, Standing
from policies.fleet.freshness import is_fresh
from policies.fleet.handover import Peer, find_way

log = logging.getLogger("delen")

_PERIOD = 1.0
"""Seconds from one look at a peer to the next."""

_ANSWERS = 0.5
"""Seconds in which a peer has to say how it stands."""

_TRIPS = 8
"""So many of the last round trips tell the link's delay: the shortest."""

_REMEMBERED = 30.0
"""Seconds after which a measured bandwidth is unknown again, so that the link is tried."""

_GAIN = 0.3


class HttpPeers:
    """The daemons at ``urls``. ``start`` begins to ask each of them once a second how it stands."""

    def __init__(self, urls: Iterable[str]) -> None:
        self._peers = {peer.name: peer for peer in map(_HttpPeer, urls)}
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._look, args=(peer,), name="delen-peer", daemon=True)
            for peer in self._peers.values()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        for peer in self._peers.values():
            peer.close()

    def find(
        self, model: Model, bounds: Bounds, delay: float, waits: Sequence[float] | None
    ) -> Way | None:
        now = time.monotonic()
        views = [peer.view(model, now) for peer in self._peers.values()]
        peers = [view for view in views if view is not None]
        if not peers:
            return None
        shapes = [exit.features or () for exit in model.bundle.exits[:-1]]
        payloads = [encoded_size(shape, DEFAULT_ENCODING) for shape in shapes]
        return find_way(model.planner, model.costs, bounds, delay, waits, payloads, peers)

    def go_on(self, peer: str, begun: Result, priority: int | None, seconds: float) -> Result:
        return self._peers[peer].go_on(begun, priority, seconds)

    def _look(self, peer: _HttpPeer) -> None:
        while not self._closing.is_set():
            peer.look()
            self._closing.wait(_PERIOD)


class Link:
    """What is known of a link: its delay is half the shortest of the last round trips, its
    bandwidth is that of what was carried lately, unknown where nothing was."""

    def __init__(self) -> None:
        self._trips: deque[float] = deque(maxlen=_TRIPS)
        self._bandwidth = inf
        self._measured = -inf

    def took(self, seconds: float) -> None:
        """A request and an answer of a few bytes were on the way for so long."""
        self._trips.append(seconds)

    def carried(self, payload: int, seconds: float, now: float) -> None:
        """So were ``payload`` bytes and an answer."""
        spent = seconds - min(self._trips, default=0.0)
        if spent <= 0:
            return
        found, known = payload / spent, self._bandwidth_at(now)
        if known < inf:
            found = 1 / ((1 - _GAIN) / known + _GAIN / found)
        self._bandwidth, self._measured = found, now

    def state(self, now: float) -> LinkState:
        return LinkState(self._bandwidth_at(now), min(self._trips, default=0.0) / 2)

    def _bandwidth_at(self, now: float) -> float:
        return self._bandwidth if now - self._measured < _REMEMBERED else inf


class _HttpPeer:
    """One daemon, how it stands, and the link to it. ``name`` is its host and port."""

    def __init__(self, url: str) -> None:
        self.name = peer_name(url)
        self._caller = NodeCaller(self.name, url, None, _ANSWERS)
        self._client = Client(url)
        self._standing: Standing | None = None
        self._problem: str | None = "it was not asked yet"
        self._link = Link()
        self._away: dict[object, tuple[float, float]] = {}
        """Of the jobs that are there: when their features arrive, and the seconds of their work."""

    def close(self) -> None:
        self._caller.close()
        self._client.close()

    def look(self) -> None:
        """Ask it how it stands."""
        asked = time.monotonic()
        heard = self._caller.ask()
        if heard.standing is None:
            self._standing = None
        else:
            self._link.took(time.monotonic() - asked)
            self._standing = replace(heard.standing, said=asked)
        problem = heard.problem
        if problem is not None and self._problem is None:
            log.warning("peer %s takes no jobs now: %s", self.name, problem)
        elif problem is None and self._problem is not None:
            log.info("peer %s takes jobs", self.name)
        self._problem = problem

    def view(self, model: Model, now: float) -> Peer | None:
        """What it can do for ``model``; None where it has another bundle, or has not said how it
        stands lately."""
        standing, bundle = self._standing, model.bundle
        if standing is None or not is_fresh(standing, now):
            return None
        served = next((each for each in standing.models if each.bundle == bundle.digest), None)
        if served is None:
            return None
        points = [point for point in served.points if point.size == bundle.size]
        backlog = max(0.0, standing.backlog - (now - standing.said))
        backlog += 0.0 if served.resident else served.load
        away = list(self._away.values())
        backlog += sum(seconds for arrives, seconds in away if arrives > standing.said)
        return Peer(self.name, points, backlog, standing.slowdown, self._link.state(now))

    def go_on(self, begun: Result, priority: int | None, seconds: float) -> Result:
        suspended = begun.suspended
        assert suspended is not None
        sent, payload, here = time.monotonic(), len(suspended.features), object()
        arrives = sent + self._link.state(sent).seconds(payload)
        self._away[here] = arrives, self._work(suspended)
        try:
            result: Result = self._client.resume(begun, priority=priority, timeout=seconds)
        except DaemonUnreachable:
            self._standing = None
            raise
        finally:
            del self._away[here]
        now = time.monotonic()
        there = sum(
            part.latency
            for part in result.receipt.parts
            if part.exits and part.exits[0] > suspended.exit
        )
        self._link.carried(payload, now - sent - there, now)
        return result

    def _work(self, suspended: Suspended) -> float:
        """Seconds that it takes from there to its deepest exit, as far as it has said so."""
        standing = self._standing
        if standing is None:
            return 0.0
        latencies = {
            point.exit: point.latency
            for served in standing.models
            if served.bundle == suspended.bundle
            for point in served.points
            if point.size == suspended.size
        }
        begin = latencies.get(suspended.exit)
        return 0.0 if begin is None else (max(latencies.values()) - begin) * standing.slowdown


def peer_name(url: str) -> str:
    """Host and port of the daemon at ``url``. ConfigError unless it is one over TCP, by a name that
    receipts can have."""
    try:
        Endpoint.of(url, None)
    except InvalidInput as error:
        raise ConfigError(f"fleet.peers: {error}") from None
    netloc = urlsplit(url).netloc
    if not netloc:
        raise ConfigError(f"fleet.peers: {url!r} is not on another machine: write http://HOST:PORT")
    try:
        return check_name(netloc, "its host and port")
    except InvalidInput as error:
        raise ConfigError(f"fleet.peers: {url!r} cannot be used: {error}; name the host") from None
