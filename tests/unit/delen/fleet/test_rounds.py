"""The hub's rounds, with actors of this process and a clock that stands between calls."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from delen.daemon.node_caller import Heard
from delen.errors import DelenError
from delen.fleet.config import HubSettings, NodeSettings
from delen.fleet.decider import Decider, Decision, pack_policy
from delen.fleet.demands import Demands
from delen.fleet.metrics import HubMetrics
from delen.fleet.rounds import COORDINATOR, LONGEST_DECISION, Call, Rounds
from policies.fleet.api import Demand, FleetPolicy, Standing
from policies.fleet.default import Default
from tests.builders.fleet import demand, standing

Answer = Callable[[], Heard]


@dataclass
class Site:
    """Actors that answer at once, unless what they are asked for is in ``silent``."""

    now: float = 100.0
    nodes: dict[str, Answer] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    silent: set[tuple[str, str]] = field(default_factory=set)
    told: list[tuple[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    decided: list[float] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    process: int = 1
    ended: deque[tuple[Call, Heard | Decision | Exception]] = field(default_factory=deque)

    def ask(self, call: Call) -> None:
        self.asked.append(call.actor)
        self._end(call, self.nodes[call.actor])

    def tell(self, call: Call, directives: bytes) -> None:
        self.told.append((call.actor, json.loads(directives)))
        self._end(call, lambda: Heard(self.process, problem=self.refusals.get(call.actor)))

    def decide(
        self, call: Call, policy: bytes, standings: Sequence[Standing], demands: bytes, lease: float
    ) -> None:
        self.decided.append(call.began)
        self._end(call, lambda: Decider().decide(policy, standings, demands, call.began, lease))

    def restart(self, actor: str) -> None:
        self.restarted.append(actor)

    def wait(self, seconds: float) -> list[tuple[Call, Heard | Decision | Exception]]:
        if not self.ended:
            self.now += seconds
            return []
        return [self.ended.popleft()]

    def _end(self, call: Call, give: Callable[[], Heard | Decision]) -> None:
        if (call.kind, call.actor) in self.silent:
            return
        try:
            self.ended.append((call, give()))
        except Exception as error:
            self.ended.append((call, error))


@pytest.fixture
def site() -> Site:
    nodes: dict[str, Answer] = {
        name: (lambda name=name: Heard(1, standing(name, said=-1.0))) for name in ("near", "far")
    }
    return Site(nodes=nodes)


@pytest.fixture
def metrics() -> HubMetrics:
    return HubMetrics()


@pytest.fixture
def demands() -> Demands:
    return Demands(1e6)


@pytest.fixture
def make(site: Site, metrics: HubMetrics, demands: Demands) -> Callable[..., Rounds]:
    def make(policy: FleetPolicy | None = None) -> Rounds:
        settings = HubSettings(tuple(NodeSettings(name, f"http://{name}") for name in site.nodes))
        packed = pack_policy(policy or Default())
        return Rounds(settings, site, packed, demands, metrics, lambda: site.now)

    return make


def run(rounds: Rounds, site: Site, seconds: float) -> None:
    until = site.now + seconds
    while site.now < until:
        rounds.step()


def states(rounds: Rounds, site: Site) -> dict[str, str]:
    return {name: node.state(site.now) for name, node in rounds.latest.view.nodes.items()}


def test_every_node_is_asked_once_a_period_and_its_standing_stamped_with_that_time(
    make: Callable[..., Rounds], site: Site
) -> None:
    rounds = make()
    run(rounds, site, 3.0)
    assert site.asked.count("near") == site.asked.count("far") == 3
    assert len(site.decided) == 3
    assert {each.said for each in rounds.latest.view.standings} == {102.0}


def test_directives_are_told_at_once_and_renewed_every_period(
    make: Callable[..., Rounds], site: Site, demands: Demands
) -> None:
    demands.note(demand("a", deadline=0.03), site.now)
    rounds = make()
    run(rounds, site, 1.0)
    (node, told), *others = site.told
    assert (told["lease_s"], set(told["ceilings"]), others) == (3.0, {"default"}, [])
    route = rounds.latest.policy.route(demand("a"), rounds.latest.view.standings, site.now)
    assert route is not None and route.node == node
    run(rounds, site, 1.0)
    assert site.told[1:] == [(node, told)]
    site.silent.add(("decide", COORDINATOR))
    run(rounds, site, 3.0)
    assert site.told[2:] == [(node, told), (node, told)]


def test_a_decision_that_comes_while_a_node_is_told_is_told_next(
    make: Callable[..., Rounds], site: Site, demands: Demands
) -> None:
    demands.note(demand("a", deadline=0.03), site.now)
    site.nodes.pop("far")
    rounds = make()
    site.silent.add(("tell", "near"))
    run(rounds, site, 1.0)
    call = Call("tell", "near", site.now)
    demands.note(demand("b", deadline=0.03, tenant="shop"), site.now)
    run(rounds, site, 1.0)
    assert len(site.told) == 1
    site.silent.clear()
    site.ended.append((call, Heard(1)))
    rounds.step()
    assert [set(told["ceilings"]) for _, told in site.told] == [{"default"}, {"default", "shop"}]


def test_directives_are_withdrawn_once_where_nothing_is_left_to_say(
    make: Callable[..., Rounds], site: Site, demands: Demands
) -> None:
    rounds, one = make(), demand("a", deadline=0.03)
    demands.note(one, site.now)
    run(rounds, site, 1.0)
    node = site.told[0][0]
    demands.note(one, site.now - 2e6)
    run(rounds, site, 3.0)
    assert site.told[-1] == (node, {})
    assert sum(told == {} for _, told in site.told) == 1


def test_a_silent_node_stops_neither_others_nor_decisions(
    make: Callable[..., Rounds], site: Site
) -> None:
    rounds = make()
    run(rounds, site, 1.0)
    site.silent.add(("ask", "near"))
    run(rounds, site, 4.0)
    assert states(rounds, site) == {"near": "down", "far": "up"}
    assert [each.node for each in rounds.latest.view.standings] == ["far"]
    assert site.asked.count("far") == 5
    assert len(site.decided) == 5


def test_a_node_that_misses_two_standings_is_down_and_counted(
    make: Callable[..., Rounds], site: Site, metrics: HubMetrics
) -> None:
    rounds, answer = make(), site.nodes["near"]
    run(rounds, site, 1.0)
    site.nodes["near"] = lambda: Heard(1, problem="no answer in time")
    run(rounds, site, 1.0)
    assert states(rounds, site)["near"] == "up"
    run(rounds, site, 1.0)
    assert states(rounds, site)["near"] == "down"
    assert b'delen_fleet_missed_standings_total{node="near"} 2.0' in metrics.exposition()
    site.nodes["near"] = answer
    run(rounds, site, 1.0)
    assert states(rounds, site)["near"] == "up"


def test_an_actor_that_died_costs_one_standing_and_its_restart_is_counted(
    make: Callable[..., Rounds], site: Site, metrics: HubMetrics
) -> None:
    rounds, answer = make(), site.nodes["near"]
    run(rounds, site, 1.0)

    def die() -> Heard:
        raise RuntimeError("the actor died")

    site.nodes["near"] = die
    run(rounds, site, 1.0)
    node = rounds.latest.view.nodes["near"]
    assert node.state(site.now) == "up"
    assert "the actor died" in (node.problem or "")
    site.nodes["near"] = lambda: Heard(2, answer().standing)
    run(rounds, site, 1.0)
    assert rounds.latest.view.nodes["near"].problem is None
    assert b'delen_fleet_actor_restarts_total{actor="near"} 1.0' in metrics.exposition()


class Failing(Default):
    """Fails to coordinate from the second time on."""

    times = 0

    def coordinate(
        self, standings: Sequence[Standing], demands: Sequence[Demand], now: float
    ) -> Any:
        self.times += 1
        if self.times > 1:
            raise DelenError("out of ideas")
        return super().coordinate(standings, demands, now)


def test_directives_and_routes_stay_where_the_policy_fails_and_it_is_said(
    make: Callable[..., Rounds],
    site: Site,
    demands: Demands,
    metrics: HubMetrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = demand("a", deadline=0.03)
    demands.note(one, site.now)
    rounds = make(Failing())
    run(rounds, site, 1.0)
    told = site.told[-1]
    assert rounds.problem is None
    run(rounds, site, 3.0)
    assert "out of ideas" in (rounds.problem or "")
    assert set(map(str, site.told)) == {str(told)}
    assert len(site.told) >= 3
    route = rounds.latest.policy.route(one, rounds.latest.view.standings, site.now)
    assert route is not None and route.node == told[0]
    assert b'delen_fleet_policy_failures_total{call="coordinate"} 3.0' in metrics.exposition()
    assert len([each for each in caplog.records if "out of ideas" in each.message]) == 1


def test_a_decision_that_never_ends_is_ended_and_none_overlaps(
    make: Callable[..., Rounds], site: Site
) -> None:
    rounds = make()
    site.silent.add(("decide", COORDINATOR))
    run(rounds, site, LONGEST_DECISION)
    assert (len(site.decided), site.restarted) == (1, [])
    run(rounds, site, 2.0)
    assert set(site.restarted) == {COORDINATOR}


def test_a_refused_directive_is_said_of_its_node(
    make: Callable[..., Rounds], site: Site, demands: Demands, metrics: HubMetrics
) -> None:
    demands.note(demand("a", deadline=0.03), site.now)
    site.refusals = {"near": "the token is wrong", "far": "the token is wrong"}
    rounds = make()
    run(rounds, site, 2.0)
    problems = [node.problem or "" for node in rounds.latest.view.nodes.values()]
    assert any("the token is wrong" in problem for problem in problems)
    assert b"delen_fleet_refused_directives_total" in metrics.exposition()
    assert states(rounds, site) == {"near": "up", "far": "up"}
