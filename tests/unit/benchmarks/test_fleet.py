"""The sites of the fleets' benchmarks are those that they claim to be."""

from __future__ import annotations

import pytest

from benchmarks.fleet import dystri, jellyfish, offload
from benchmarks.fleet.crowd import ClientLog
from benchmarks.fleet.kills import plan_kills
from benchmarks.fleet.members import HUB
from benchmarks.profile_files import NANO
from delen.profile.reader import load_profile
from delen.simulate.fleet.run import play
from delen.simulate.streams.bandwidth import constant
from delen.simulate.synthetic import synthetic
from policies.plugins import make_fleet


def test_jellyfishs_profile_is_its_formula() -> None:
    points = jellyfish.points()
    by_side = {point.size[0]: point for point in points if point.size is not None}
    assert by_side[640].accuracy == pytest.approx(0.8058, abs=1e-4)
    assert by_side[640].payload == 153_600
    seconds = jellyfish.PLANNED * (0.08315 * 640**2 - 0.04463 * 640 + 0.03757) / 1e6
    assert by_side[640].latencies[0] == pytest.approx(0.75 * seconds)
    assert by_side[640].latencies[7] == pytest.approx(2.5 * seconds)
    assert all(point.accuracy > 0 for point in points)


def test_a_cell_of_the_grid_plays() -> None:
    site = jellyfish.site(constant(40.0, 60.0), 4, 0.1, 15)
    reached = {
        name: play(site, make_fleet(name)).summary()["effective_accuracy"]
        for name in jellyfish.POLICIES
    }
    assert min(reached.values()) > 0.7
    assert reached["default"] >= reached["jellyfish"] - 0.01
    assert len(jellyfish.cells()) == 8 * 3 * 2 * 3


def test_the_capacity_is_what_the_nodes_first_exits_have_time_for() -> None:
    most = dystri.capacity()
    nodes = dystri.nodes()
    seconds = [sum(model.typical[0][0] for model in node.models) for node in nodes]
    assert most % 2 == 0
    # each pair of users takes the first exits of both models, ten times a second
    assert 0 < most / 2 <= sum(1 / (dystri.FPS * each) for each in seconds)


def test_a_run_over_a_link_is_right_more_often_than_the_board_alone() -> None:
    profile = load_profile(NANO)
    assert profile.accuracies is not None
    table = synthetic(profile.accuracies, 2000, 0)
    runs = {
        policy.name: offload.play(constant(20.0, 100.0), table, policy, 0)
        for policy in offload.policies()
    }
    assert runs["paths"].accuracy > runs["local"].accuracy
    assert runs["paths"].joules < runs["local"].joules
    cut = offload.play(constant(0.0, 100.0), table, offload.Paths(), 0)
    assert cut.accuracy > 0.6
    assert cut.late < 0.01


def test_every_daemon_is_killed_in_turn_and_the_hub_twice() -> None:
    planned = plan_kills(["a", "b"], 100.0, 20.0)
    assert [(kill.member, kill.at) for kill in planned[:5]] == [
        ("a", 10.0),
        ("b", 30.0),
        ("a", 50.0),
        ("b", 70.0),
        ("a", 90.0),
    ]
    assert [kill.member for kill in planned[5:]] == [HUB, HUB]


def test_a_client_that_is_never_answered_waited_all_the_time() -> None:
    assert ClientLog(seconds=8.0).longest_gap == 8.0
    log = ClientLog(seconds=8.0, answered=[1.0, 2.0, 5.0], request_ids=["a", "b", "a"])
    assert (log.longest_gap, log.duplicates) == (3.0, 1)
