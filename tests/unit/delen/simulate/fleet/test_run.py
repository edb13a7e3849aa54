from __future__ import annotations

from dataclasses import replace

import pytest

from delen.simulate.fleet.run import play
from delen.simulate.fleet.site import HubSettings, Place
from delen.simulate.streams.bandwidth import constant
from delen.simulate.streams.link import LinkSettings
from policies.fleet.api import Ceiling, Demand, Directive, Price, Route, Standing
from policies.plugins import FLEET_POLICIES, make_fleet, plugin_names
from tests.builders.fleet import POINTS
from tests.builders.site import SLOWER, node, site

DEEPEST = POINTS[-1].accuracy


class Fixed:
    """Sends everybody to one node, with one price."""

    name = "fixed"

    def __init__(self, node: str, price: float = 0.0, exit: int = 2) -> None:
        self.node, self.price, self.exit = node, price, exit
        self.heard: list[tuple[float, list[Standing], list[Demand]]] = []

    def coordinate(
        self, standings: list[Standing], demands: list[Demand], now: float
    ) -> list[Directive]:
        self.heard.append((now, list(standings), list(demands)))
        return [Directive(self.node, now, 3.0, prices={"default": Price(self.price)})]

    def route(self, request: Demand, standings: list[Standing], now: float) -> Route | None:
        return Route(self.node, 3.0, 0.1, Ceiling(self.exit))


@pytest.mark.parametrize("name", sorted(plugin_names(FLEET_POLICIES)))
def test_every_frame_has_one_end_and_a_run_repeats(name: str) -> None:
    played = site(node("near", SLOWER, down=((3.0, 5.0),)), node("far"), clients=3)
    first = play(played, make_fleet(name), 1).summary()
    again = play(played, make_fleet(name), 1).summary()
    assert first["requests"] == 300
    ended = first["answered"] + first["refused"] + sum(first["dropped"].values())
    assert ended == first["requests"]
    del first["decision_ms"], again["decision_ms"]
    assert first == again


def test_an_idle_node_answers_as_deep_as_it_is_asked_to() -> None:
    summary = play(site(clients=1), Fixed("far")).summary()
    assert summary["effective_accuracy"] == pytest.approx(DEEPEST)
    assert summary["nodes"]["far"]["energy_j"] == pytest.approx(0.1 * summary["answered"])
    # 20 ms to the last exit, 2 ms each way, and the bytes of the head of a request
    assert summary["latency_ms"]["p50"] == pytest.approx(24, abs=0.1)
    shallow = play(site(clients=1), Fixed("far", exit=0)).summary()
    assert shallow["effective_accuracy"] == pytest.approx(POINTS[0].accuracy)


def test_prices_of_directives_make_answers_shallower_until_their_lease_ends() -> None:
    # the last exit gains 0.1 for 10 ms more than the middle one
    dear = play(site(clients=1), Fixed("far", price=11.0)).summary()
    cheap = play(site(clients=1), Fixed("far", price=9.0)).summary()
    assert dear["effective_accuracy"] < cheap["effective_accuracy"]
    deaf = HubSettings(down=((1.5, 10.0),))
    freed = play(site(clients=1, hub=deaf), Fixed("far", price=11.0)).summary()
    assert dear["effective_accuracy"] < freed["effective_accuracy"] < cheap["effective_accuracy"]


def test_overload_makes_answers_shallower_before_it_refuses() -> None:
    light = play(site(clients=2), Fixed("far")).summary()
    heavy = play(site(clients=14), Fixed("far")).summary()
    assert heavy["effective_accuracy"] < light["effective_accuracy"]
    assert heavy["missed"] == 0
    flooded = play(site(clients=60), Fixed("far")).summary()
    assert flooded["refused"] > 0
    assert flooded["latency_ms"]["p99"] <= 100


def test_clients_leave_a_node_that_fails_and_come_back() -> None:
    played = site(node("near", SLOWER), node("far", down=((3.0, 6.0),)), clients=1)
    log = play(played, make_fleet("least_impedance"))
    at, nodes, good = log.at, log.node, log.effective > 0
    names = [each.name for each in played.nodes]
    during = (at > 3.2) & (at < 6)
    assert set(nodes[during]) == {names.index("near")}
    assert good[during].all()
    assert names.index("far") in nodes[at > 9]
    assert (~good).sum() <= 2


def test_without_a_hub_clients_go_on_and_at_last_serve_themselves() -> None:
    gone = HubSettings(down=((2.0, 10.0),))
    played = site(node("near", SLOWER), node("far", down=((5.0, 10.0),)), clients=1, hub=gone)
    log = play(played, make_fleet("least_impedance"))
    names = [each.name for each in played.nodes]
    between = (log.at > 2) & (log.at < 4.9)
    assert set(log.node[between]) == {names.index("far")}
    assert set(log.node[log.at > 5.5]) == {names.index("near")}


def test_old_standings_and_those_of_a_wrong_clock_are_not_routed_to() -> None:
    ahead = site(node("near", SLOWER), node("far", clock=7200.0), clients=1)
    log = play(ahead, make_fleet("least_impedance"))
    assert set(log.node[log.node >= 0]) == {0}


def test_the_hub_sees_what_was_said_a_delay_ago() -> None:
    policy = Fixed("far")
    play(site(clients=1, hub=HubSettings(delay=0.2)), policy)
    now, standings, demands = policy.heard[3]
    assert {each.node for each in standings} == {"near", "far"}
    assert all(0.2 <= now - each.said < 1.2 for each in standings)
    assert [each.client for each in demands] == ["c0"]
    busy = next(each for each in standings if each.node == "far")
    assert busy.utilisation == pytest.approx(0.2, abs=0.05)  # 10 frames of 20 ms a second


def test_a_client_that_moves_has_the_links_of_its_new_place() -> None:
    played = site(clients=1, moves=((5.0, "yard"),))
    yard = Place("yard", LinkSettings(constant(80.0, 100.0), 30e-3), {"far": 30e-3})
    log = play(replace(played, places={**played.places, "yard": yard}), make_fleet("closest"))
    names = [each.name for each in played.nodes]
    assert set(log.node[log.at < 4.9]) == {names.index("near")}
    later = log.at > 5.1
    assert set(log.node[later]) == {names.index("far")}
    assert (log.latency[later] > 0.06).all()


def test_a_link_that_carries_nothing_costs_frames_and_no_more() -> None:
    played = site(node("far"), clients=1, mbps=0.0)
    summary = play(played, make_fleet("default")).summary()
    assert summary["answered"] == 0
    assert summary["dropped"]["no_route"] == summary["requests"]


def test_clients_come_and_go() -> None:
    log = play(site(clients=1, start=2.0, end=4.0), make_fleet("default"))
    assert 2.0 <= log.at.min() <= log.at.max() < 4.0
    assert len(log) == pytest.approx(20, abs=1)


def test_a_floor_that_an_answer_does_not_keep_counts_as_nothing() -> None:
    summary = play(site(clients=1, min_accuracy=0.75), Fixed("far", exit=1)).summary()
    assert summary["effective_accuracy"] == 0
    assert summary["missed"] == summary["answered"] > 0
