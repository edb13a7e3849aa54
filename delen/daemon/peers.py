"""Other daemons, over HTTP, that go on with jobs whose bounds cannot be kept here."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from math import inf
from urllib.parse import urlsplit

import msgspec

from delen.bundle.features import encoded_size
from delen.core.bounds import DEFAULT_ENCODING, Bounds
from delen.core.handover import Way
from delen.core.result import Result
from delen.engine.model import Model
from delen.errors import ConfigError, DaemonUnreachable, DelenError, InvalidInput
from delen.sdk.client import Client
from delen.sdk.http import Endpoint, Late, Request, Unanswered, Unconnected
from delen.sdk.pools import Pool
from delen.wire.fleet import Standing, StandingModel
from delen.wire.message import read_answer
from policies.fleet.api import LinkState, OperatingPoint
from policies.fleet.freshness import PATIENCE
from policies.fleet.handover import Peer, find_way

log = logging.getLogger("delen")

_PERIOD = 1.0
"""Seconds from one look at all peers to the next."""

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
        self._thread = threading.Thread(target=self._look, name="delen-peers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
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

    def _look(self) -> None:
        while not self._closing.is_set():
            for peer in self._peers.values():
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
        self._pool = Pool(Endpoint.of(url, None))
        self._client = Client(url)
        self._standing: tuple[Standing, float] | None = None
        self._problem: str | None = "it was not asked yet"
        self._link = Link()

    def close(self) -> None:
        self._pool.close()
        self._client.close()

    def look(self) -> None:
        """Ask it how it stands."""
        asked = time.monotonic()
        try:
            answer = self._pool.exchange(Request("GET", "/v1/standing"), _ANSWERS)
            standing = read_answer(Standing, answer.body) if answer.status == 200 else None
            problem = None if standing else f"it answers with status {answer.status}"
        except (Unconnected, Unanswered, Late, DelenError, ValueError, RecursionError) as error:
            standing, problem = None, str(error)
        if standing is not None:
            self._link.took(time.monotonic() - asked)
        self._standing = None if standing is None else (standing, asked)
        if problem is not None and self._problem is None:
            log.warning("peer %s takes no jobs now: %s", self.name, problem)
        elif problem is None and self._problem is not None:
            log.info("peer %s takes jobs", self.name)
        self._problem = problem

    def view(self, model: Model, now: float) -> Peer | None:
        """What it can do for ``model``; None where it has another bundle, or has not said how it
        stands lately."""
        standing, said = self._standing or (None, -inf)
        age = now - said
        if standing is None or age > PATIENCE:
            return None
        served = next((m for m in standing.models if m.bundle == model.bundle.digest), None)
        points = () if served is None else _points(served, model)
        if served is None or not points:
            return None
        backlog = max(0.0, standing.backlog - age) + (0.0 if served.resident else served.load)
        return Peer(self.name, points, backlog, standing.slowdown, self._link.state(now))

    def go_on(self, begun: Result, priority: int | None, seconds: float) -> Result:
        assert begun.suspended is not None
        sent = time.monotonic()
        try:
            result: Result = self._client.resume(begun, priority=priority, timeout=seconds)
        except DaemonUnreachable:
            self._standing = None
            raise
        now = time.monotonic()
        there = sum(
            part.latency
            for part in result.receipt.parts
            if part.exits and part.exits[0] > begun.suspended.exit
        )
        self._link.carried(len(begun.suspended.features), now - sent - there, now)
        return result


def peer_name(url: str) -> str:
    """Host and port of the daemon at ``url``. ConfigError unless it is one over TCP."""
    try:
        Endpoint.of(url, None)
    except InvalidInput as error:
        raise ConfigError(f"fleet.peers: {error}") from None
    netloc = urlsplit(url).netloc.rpartition("@")[2]
    if not netloc:
        raise ConfigError(f"fleet.peers: {url!r} is no daemon on another machine: http://HOST:PORT")
    return netloc


def _points(served: StandingModel, model: Model) -> tuple[OperatingPoint, ...]:
    size = model.bundle.size
    try:
        return tuple(each.to(OperatingPoint) for each in served.points if each.size == size)
    except (InvalidInput, msgspec.ValidationError):
        return ()
