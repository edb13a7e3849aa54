"""The hub's rounds: ask every node, have the policy decide, tell the nodes. Without Ray."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from delen.daemon.node_caller import Heard
from delen.fleet.config import HubSettings
from delen.fleet.decider import Decision, pack_demands
from delen.fleet.demands import Demands
from delen.fleet.metrics import HubMetrics
from delen.fleet.nodes import Nodes
from delen.fleet.router import Latest
from policies.fleet.api import Standing

log = logging.getLogger("delen.fleet")

COORDINATOR = "(coordinator)"
"""Not a name that a node can have."""

LONGEST_DECISION = 60.0
"""Seconds after which the coordinator is started again, since its policy may never end."""

_EMPTY = b"{}"


class Call(NamedTuple):
    """What an actor is asked for, ``began`` by the hub's clock."""

    kind: Literal["ask", "tell", "decide"]
    actor: str
    began: float


class Actors(Protocol):
    """Calls to actors, each of which does one after the other."""

    def ask(self, call: Call) -> None: ...
    def tell(self, call: Call, directives: bytes) -> None: ...
    def decide(
        self, call: Call, policy: bytes, standings: Sequence[Standing], demands: bytes, lease: float
    ) -> None: ...

    def restart(self, actor: str) -> None:
        """End what the actor does, and start it again."""

    def wait(self, seconds: float) -> list[tuple[Call, Heard | Decision | Exception]]:
        """What calls gave or failed with, as soon as any has ended; nothing after ``seconds``."""


@dataclass(slots=True)
class _Told:
    """The directives of a node: the ``last`` that were decided, those that were ``sent``, and
    whether the node may still obey some that are to be withdrawn."""

    last: bytes = _EMPTY
    sent: bytes = _EMPTY
    obeys: bool = False


class Rounds:
    """One thread calls ``step`` again and again. ``policy`` is the fleet policy as
    ``pack_policy`` packs it; clients' routes come from ``latest``."""

    def __init__(
        self,
        settings: HubSettings,
        actors: Actors,
        policy: bytes,
        demands: Demands,
        metrics: HubMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._actors = actors
        self._policy = policy
        self._demands = demands
        self._metrics = metrics
        self._clock = clock
        self._nodes = Nodes(settings.nodes, settings.period)
        self._told = {node.name: _Told() for node in settings.nodes}
        self._pending = dict[tuple[str, str], Call]()
        self._processes = dict[str, int]()
        self._next = self.stepped = clock()
        """When the next round and the last step begin."""
        self._is_decided = True
        self._is_renewal_due = False
        self.latest = Latest(self._nodes.view(self._next), pickle.loads(policy))
        self.problem: str | None = None
        """Why there was no decision the last time, if there was none."""

    def step(self) -> None:
        """What is due now, and then what comes of it until the next thing is."""
        now = self.stepped = self._clock()
        if now >= self._next:
            self._begin_round(now)
        if not self._is_decided and (now >= self._decide_at or not self._asks()):
            self._decide(now)
        until = self._next if self._is_decided else self._decide_at
        ended = self._actors.wait(max(0.0, until - now))
        for call, result in ended:
            self._take(call, result)
        if ended:
            self.latest.view = self._nodes.view(self._clock())

    @property
    def _decide_at(self) -> float:
        """By then the policy decides without the nodes that have not answered."""
        return self._next - self._settings.period / 2

    def _asks(self) -> bool:
        return any(kind == "ask" for kind, _ in self._pending)

    def _begin_round(self, now: float) -> None:
        period = self._settings.period
        is_late = now > self._next + period / 2
        self._next = (now if is_late else self._next) + period
        self._is_decided = False
        for node in self._settings.nodes:
            if ("ask", node.name) not in self._pending:
                self._actors.ask(self._call("ask", node.name, now))
        self.latest.view = self._nodes.view(now)
        if self._is_renewal_due:
            for name in self._told:
                self._tell(name, now)
        self._is_renewal_due = True

    def _tell(self, name: str, now: float) -> None:
        """Have a node obey its last directives for another lease, or withdraw them once."""
        told = self._told[name]
        is_up = self.latest.view.nodes[name].state(now) == "up"
        if is_up and ("tell", name) not in self._pending and (told.last != _EMPTY or told.obeys):
            told.sent, told.obeys = told.last, True
            self._actors.tell(self._call("tell", name, now), told.last)

    def _decide(self, now: float) -> None:
        self._is_decided = True
        if (deciding := self._pending.get(("decide", COORDINATOR))) is not None:
            if now - deciding.began > LONGEST_DECISION:
                self._actors.restart(COORDINATOR)
            return
        standings, demands = self.latest.view.standings, self._demands.alive(now)
        call = self._call("decide", COORDINATOR, now)
        lease = self._settings.lease
        self._actors.decide(call, self._policy, standings, pack_demands(demands), lease)

    def _call(self, kind: Literal["ask", "tell", "decide"], actor: str, now: float) -> Call:
        call = self._pending[kind, actor] = Call(kind, actor, now)
        return call

    def _take(self, call: Call, result: Heard | Decision | Exception) -> None:
        self._pending.pop((call.kind, call.actor), None)
        if not isinstance(result, Exception):
            before = self._processes.get(call.actor)
            self._processes[call.actor] = result.process
            if before not in (None, result.process):
                log.warning("the actor of %s was started again", call.actor)
                self._metrics.restarted(call.actor)
        if call.kind == "decide":
            self._take_decision(result)
            return
        if not isinstance(result, Heard):
            self._nodes.failed(call.actor, f"its actor failed: {result}")
        elif call.kind == "ask":
            self._nodes.heard(call.actor, result, call.began)
            if result.standing is None:
                self._metrics.missed(call.actor)
        else:
            told = self._told[call.actor]
            self._nodes.told(call.actor, result.problem)
            if result.problem is not None:
                self._metrics.disobeyed(call.actor)
            elif told.sent == _EMPTY:
                told.obeys = False
            if told.sent != told.last:
                self._tell(call.actor, self._clock())

    def _take_decision(self, result: object) -> None:
        """The last directives stay where there are no new ones."""
        try:
            if not isinstance(result, Decision):
                raise TypeError(str(result))
            if result.policy is not None:
                self.latest.use(result.policy)
                self._policy = result.policy
        except Exception as error:
            self._metrics.policy_failed("coordinate")
            if self.problem != str(error):
                log.error("there is no decision, the last directives stay: %s", error)
            self.problem = str(error)
            return
        if self.problem is not None:
            log.info("the coordinator decides again")
        self.problem = None
        self._metrics.decided(result.seconds)
        self._direct(result.directives)

    def _direct(self, directives: Mapping[str, bytes]) -> None:
        now, self._is_renewal_due = self._clock(), False
        for name, told in self._told.items():
            told.last = directives.get(name, _EMPTY)
            self._tell(name, now)
