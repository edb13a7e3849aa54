from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from delen.simulate.fleet.run import play
from delen.simulate.fleet.site import LARGEST, HubSettings, NodeModel, Place, Site
from delen.simulate.streams.bandwidth import constant
from delen.simulate.streams.link import LinkSettings
from policies.fleet.api import (
    Ceiling,
    Demand,
    Directive,
    OperatingPoint,
    Price,
    Route,
    ServedModel,
    Size,
    Standing,
)
from policies.plugins import CLIENT_CONTROLLERS, FLEET_POLICIES, make_fleet, plugin_names
from tests.builders.fleet import MODEL, POINTS
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


SIZES = ((64, 64), (128, 128), (256, 256))


def sized(controller: str, seconds: float = 20.0, mbps: float = 8.0, clients: int = 1) -> Site:
    """Nodes with three sizes of 5, 20 and 40 kB: one second of 8 Mbit/s carries 25 of the last."""
    points = tuple(
        OperatingPoint(0, accuracy, (seconds, 2 * seconds), payload, size)
        for size, accuracy, seconds, payload in zip(
            SIZES, (0.5, 0.7, 0.8), (0.005, 0.01, 0.02), (5e3, 20e3, 40e3), strict=True
        )
    )
    typical = tuple(point.latencies for point in points)
    nodes = [
        replace(node(name), models=(NodeModel(ServedModel(MODEL, "a", points), typical),))
        for name in ("far", "farther")
    ]
    return site(*nodes, clients=clients, seconds=seconds, mbps=mbps, controller=controller)


class Wandering(Fixed):
    """Lets clients use fewer and more sizes, and both nodes, in turn."""

    def __init__(self) -> None:
        super().__init__("far")
        self.most: dict[float, Size] = {}

    def route(self, request: Demand, standings: Sequence[Standing], now: float) -> Route | None:
        step = int(now)
        self.most[now] = SIZES[step % 3]
        return Route(("far", "farther")[step // 5 % 2], 3.0, 0.1, Ceiling(0, SIZES[step % 3]))


CONTROLLERS = (LARGEST, *plugin_names(CLIENT_CONTROLLERS))


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_a_controller_chooses_within_its_route(controller: str) -> None:
    policy = Wandering()
    log = play(sized(controller), policy)
    (client,) = log.clients
    turns = sorted(policy.most)
    sent = [n for n, name in enumerate(client.node) if name is not None]
    for number in sent:
        captured, size = client.frames.captured[number], client.size[number]
        # the route of the last turn takes 5 ms to the client
        before = [turn for turn in turns if turn + 0.005 <= captured]
        assert size is not None and size <= policy.most[before[-1]]
    assert {client.node[number] for number in sent} == {"far", "farther"}
    assert log.summary()["effective_accuracy"] > 0.4


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_a_client_has_its_sizes_switches_and_drops(controller: str) -> None:
    summary = play(sized(controller, mbps=3.0, seconds=10.0), Fixed("far", exit=0)).summary()
    client = summary["clients"]["c0"]
    assert client["controller"] == controller
    ended = client["answered"] + client["refused"] + sum(client["dropped"].values())
    assert ended == client["requests"] == 100
    sent = sum(client["sizes"].values())
    kept_back = ("no_route", "left_out", "controller", "replaced", "stale")
    assert sent == 100 - sum(client["dropped"][cause] for cause in kept_back)
    assert client["switches"] >= len(client["sizes"]) - 1


def test_a_controller_that_asks_for_less_time_has_shallower_answers() -> None:
    """mpc leaves the depth to the node; jellyfish says when the answer must leave."""
    far = site(node("far", SLOWER), clients=1, controller="mpc")
    hurried = replace(
        far, clients=(replace(far.clients[0], deadline=0.05, controller="jellyfish"),)
    )
    deep, shallow = (play(each, Fixed("far")).summary() for each in (far, hurried))
    assert deep["effective_accuracy"] > shallow["effective_accuracy"] > 0


def test_frames_that_a_route_leaves_out_are_counted() -> None:
    class Every2nd(Fixed):
        def route(self, request: Demand, standings: Sequence[Standing], now: float) -> Route | None:
            return Route(self.node, 3.0, 0.1, Ceiling(self.exit), rate=5.0)

    summary = play(site(clients=1, controller="mpc"), Every2nd("far")).summary()
    assert summary["dropped"]["left_out"] == pytest.approx(50, abs=1)
    assert summary["answered"] == pytest.approx(50, abs=1)
