"""What a hub's client knows: its routes, the nodes that failed, its links and its own rates."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from itertools import count
from math import inf

from delen.core.result import Receipt
from delen.errors import DelenError, ModelNotFound, NoRoute, Overloaded
from delen.sdk.routes.links import LinkView
from delen.sdk.routes.route import HeldRoute, TakenRoute, Want
from delen.wire.fleet import Link, Node, RouteRequest
from delen.wire.message import Megabits, Milli

AVOIDED = 3.0
"""Seconds for which a node that failed is left out, which the hub has noticed by then."""

KEPT = 10.0
"""Seconds beyond its lease for which a route is used without the hub's word, while the hub is asked
again. Beyond them a call waits for the hub, unless the hub is away."""

AWAY = 1.0
"""Seconds for which a hub that did not answer is not asked again."""

DOUBTED = 30.0
"""Seconds after which the refusals of a hub that was away count like any other's. Until then, or
until it gives a route, it may have begun anew and know less than its clients."""

NODES_EVERY = 60.0
"""Seconds after which the hub is asked again which nodes there are."""

REFUSED_EVERY = 2.0
"""The same while it gives no route: it may not hear nodes that this client does."""

_FIRST_RATE = 1.0
"""Calls a second that a client is believed to make before anything is known."""
_LEAST_SECONDS = 0.5
"""Seconds over which a rate is measured at least."""
_MOST_WANTS = 64
_MOST_ROUTES = 256
_MOST_ANSWERS = 10_000
_NOWHERE = Link(bandwidth=Megabits(0.0), delay=Milli(0.0))
"""A link that carries nothing, as that to a node that failed."""


@dataclass(slots=True)
class _State:
    """The routes of one want. ``number`` tells its demand from others of this client."""

    number: int
    held: HeldRoute | None = None
    asking_until: float = 0.0
    calls: int = 0
    since: float | None = None
    fps: float = _FIRST_RATE
    next_call: float = 0.0
    refusal: DelenError | None = None
    refused_until: float = 0.0


class RouteTable:
    """All of it for one client in one process, whose threads share it. Pure but for its lock: times
    are arguments."""

    def __init__(self, tenant: str) -> None:
        name = f"{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(4)}"
        self.client = "".join(each if each.isalnum() or each in ".-" else "-" for each in name)
        self.last: TakenRoute | None = None
        self.problem: DelenError | None = None
        self._tenant = tenant
        self._numbers = count()
        self._away_until = 0.0
        self._doubted_until = 0.0
        self._states: OrderedDict[Want, _State] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], HeldRoute] = OrderedDict()
        self._nodes: tuple[Node, ...] = ()
        self._nodes_asked = -inf
        self._up: set[str] = set()
        self._avoided: dict[str, float] = {}
        self._links: dict[str, LinkView] = {}
        self._answers: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, want: Want, now: float) -> None:
        """Count a call. Overloaded where it is beyond the rate that the hub left this client."""
        with self._lock:
            state = self._state(want)
            if state.since is None:
                state.since = now
            state.calls += 1
            held = state.held
            if held is None or held.rate >= state.fps or now > held.until:
                return
            if now < state.next_call:
                raise Overloaded(
                    f"the hub's route leaves this client {held.rate:.3g} calls a second; leave this"
                    " one out",
                    state.next_call - now,
                )
            state.next_call = max(state.next_call, now - 1 / held.rate) + 1 / held.rate

    def held(self, want: Want, tried: Collection[str], now: float) -> HeldRoute | None:
        """The route of ``want``, if it can be used without asking the hub first."""
        with self._lock:
            held = self._state(want).held
            return held if held and self._is_usable(held, tried, now) else None

    def others(self, want: Want, tried: Collection[str], now: float) -> list[HeldRoute]:
        """The routes that the hub gave for the model and that may still be used, the last first,
        then the other nodes that have it; behind them those that failed, the one that failed first
        before the others. A hub that gives no route is right of the nodes that it hears alone."""
        with self._lock:
            routes = [
                held for (model, _), held in reversed(self._known.items()) if model == want.model
            ]
            urls = {held.url for held in routes}
            routes += [
                HeldRoute(node.url, node.name)
                for node in self._nodes
                if want.model in node.models and node.url not in urls
            ]
            usable = [
                held
                for held in routes
                if held.url not in tried and (self._is_fresh(held, now) or held.url not in self._up)
            ]
            return sorted(usable, key=lambda held: max(now, self._until(held.url)))

    def wants_nodes(self, now: float) -> bool:
        """Whether the hub is to be asked now for its nodes, by whoever called."""
        with self._lock:
            is_refused = any(state.refusal is not None for state in self._states.values())
            is_due = now >= self._nodes_asked + (REFUSED_EVERY if is_refused else NODES_EVERY)
            if is_due:
                self._nodes_asked = now
            return is_due

    def keep_nodes(self, nodes: tuple[Node, ...]) -> None:
        """Those that the hub knows. One that begins anew does not know their models yet."""
        with self._lock:
            before = {node.url: node for node in self._nodes}
            self._nodes = tuple(
                node if node.models else before.get(node.url, node) for node in nodes
            )
            self._up = {node.url for node in nodes if node.state == "up"}

    def is_avoided(self, url: str, now: float) -> bool:
        """Whether the node at ``url`` failed just now."""
        with self._lock:
            return now < self._until(url)

    def may_ask(self, want: Want, now: float) -> bool:
        """Whether the hub is worth a question: it was not away and refused nothing just now."""
        with self._lock:
            return now >= self._away_until and now >= self._state(want).refused_until

    def begin_renewal(self, want: Want, now: float) -> bool:
        """Whether the route is to be renewed now, by whoever called: half its lease is over, and
        nobody else asks."""
        with self._lock:
            state = self._state(want)
            held = state.held
            if held is None or now < (held.asked + held.until) / 2:
                return False
            if now < max(self._away_until, state.refused_until, state.asking_until):
                return False
            state.asking_until = now + AWAY
            return True

    def request(self, want: Want, tried: Collection[str], now: float) -> RouteRequest:
        """What the hub is asked. A node that failed has a link that carries nothing; one without a
        link is one of which this client knows nothing."""
        with self._lock:
            state = self._state(want)
            if state.since is not None and now - state.since >= _LEAST_SECONDS:
                state.fps = max(state.calls, 1) / (now - state.since)
                state.calls, state.since = 0, now
            links: dict[str, Link] = {}
            for (_, node), held in self._known.items():
                if held.url in tried or now < self._until(held.url):
                    links[node] = _NOWHERE
                elif (view := self._links.get(held.url)) and (link := view.message(now)):
                    links[node] = link
            return RouteRequest(
                client=f"{self.client}/{state.number}",
                model=want.model,
                fps=state.fps,
                deadline=Milli(want.deadline),
                tenant=self._tenant,
                min_accuracy=want.min_accuracy,
                links=links,
            )

    def keep(self, want: Want, held: HeldRoute) -> None:
        """The hub answered."""
        assert held.node is not None
        with self._lock:
            state = self._state(want)
            state.held, state.refusal = held, None
            state.refused_until = state.asking_until = 0.0
            self._away_until = self._doubted_until = 0.0
            self.problem = None
            here = want.model, held.node
            self._known[here] = held
            self._known.move_to_end(here)
            while len(self._known) > _MOST_ROUTES:
                self._known.popitem(last=False)

    def refuse(self, want: Want, error: DelenError, now: float) -> None:
        """The hub gave no route: where it does not say that no node can answer, it may know less
        than its clients."""
        seconds = getattr(error, "retry_after", AWAY)
        with self._lock:
            state = self._state(want)
            state.refusal, state.refused_until = error, now + min(AWAY, seconds)
            self._away_until, self.problem = 0.0, None
            if not isinstance(error, (NoRoute, ModelNotFound)):
                self._doubted_until = now + DOUBTED

    def miss_hub(self, error: DelenError, now: float) -> None:
        """The hub did not answer."""
        with self._lock:
            self._away_until, self._doubted_until = now + AWAY, now + DOUBTED
            self.problem = error

    def refusal(self, want: Want) -> DelenError | None:
        """Why there is no route, where the hub said so."""
        with self._lock:
            return self._state(want).refusal

    def avoid(self, url: str, now: float, seconds: float = AVOIDED) -> None:
        """The node at ``url`` failed."""
        with self._lock:
            self._avoided[url] = now + min(AVOIDED, seconds)

    def answered(
        self, want: Want, held: HeldRoute, request_ids: Collection[str], now: float
    ) -> None:
        """A node answered a call; these requests, where it was a batch."""
        with self._lock:
            self._state(want).calls += max(0, len(request_ids) - 1)
            self._avoided.pop(held.url, None)
            for request_id in request_ids:
                self._answers[request_id] = held.url
            while len(self._answers) > _MOST_ANSWERS:
                self._answers.popitem(last=False)
        self.last = held.taken(now)

    def learn(self, url: str, payload: int, elapsed: float, receipt: Receipt, now: float) -> None:
        """What an answer shows of the link to ``url``."""
        with self._lock:
            view = self._links.get(url)
            if view is None:
                view = self._links[url] = LinkView()
            view.learn(payload, elapsed, receipt, now)

    def round_trip(self, held: HeldRoute, now: float) -> float:
        """Seconds of the network, as they were measured or else as the hub believes."""
        with self._lock:
            view = self._links.get(held.url)
            measured = None if view is None else view.round_trip(now)
        return held.network() if measured is None else measured

    def url_of(self, request_id: str) -> str | None:
        """Which node answered."""
        with self._lock:
            return self._answers.get(request_id)

    def urls(self) -> list[str]:
        """The nodes that the hub named."""
        with self._lock:
            routes = {held.url for held in self._known.values()}
            return sorted(routes | {node.url for node in self._nodes})

    def _state(self, want: Want) -> _State:
        state = self._states.get(want)
        if state is None:
            state = self._states[want] = _State(next(self._numbers))
            while len(self._states) > _MOST_WANTS:
                self._states.popitem(last=False)
        self._states.move_to_end(want)
        return state

    def _until(self, url: str) -> float:
        return self._avoided.get(url, 0.0)

    def _is_fresh(self, held: HeldRoute, now: float) -> bool:
        """Whether its lease is over for no long time, or the hub is away or began anew."""
        is_hub_there = self.problem is None and now >= self._doubted_until
        return now <= held.until + KEPT or not is_hub_there

    def _is_usable(self, held: HeldRoute, tried: Collection[str], now: float) -> bool:
        is_there = held.url not in tried and now >= self._until(held.url)
        return is_there and self._is_fresh(held, now)
