"""Which peer could finish a job, and from which exit on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

import pytest

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds
from delen.profile.cost_model import CostModel
from policies.fleet.api import LinkState, OperatingPoint
from policies.fleet.handover import Peer, find_way
from policies.plan.planner import Planner, PlannerSettings

ACCURACIES = (0.6, 0.75, 0.9)
SECONDS = (0.010, 0.010, 0.010)
JOULES = (0.1, 0.1, 0.1)
PAYLOADS = (40_000.0, 10_000.0)
FAST = tuple(
    OperatingPoint(exit, accuracy, (0.001 * (exit + 1),), energy=0.02 * (exit + 1))
    for exit, accuracy in enumerate(ACCURACIES)
)
SERVER = Peer("server", FAST, 0.0, 1.0, LinkState(10e6, 0.001))
BOUNDS = Bounds(min_accuracy=0.8, max_latency=0.025)


@pytest.fixture(scope="module")
def planner(make_calibration: Callable[..., Calibration]) -> Planner:
    return Planner(make_calibration(*ACCURACIES, samples=5_000), PlannerSettings())


@pytest.fixture(scope="module")
def costs(make_costs: Callable[..., CostModel]) -> CostModel:
    return make_costs(*SECONDS, energy=JOULES, answer=0.0003)


def way_exit(
    planner: Planner, costs: CostModel, *peers: Peer, bounds: Bounds = BOUNDS, delay: float = 0.0
) -> int | None:
    way = find_way(planner, costs, bounds, delay, None, PAYLOADS, peers)
    return None if way is None else way.exit


def test_the_way_that_is_done_soonest_is_taken(planner: Planner, costs: CostModel) -> None:
    way = find_way(planner, costs, BOUNDS, 0.0, None, PAYLOADS, [SERVER])
    assert way is not None
    assert (way.peer, way.exit) == ("server", 0)
    assert way.seconds == pytest.approx(0.002 + 0.004 + 0.002)
    assert way.joules == pytest.approx(0.04)
    far = replace(SERVER, link=LinkState(2e6, 0.001))
    wide = replace(BOUNDS, max_latency=0.035)
    assert way_exit(planner, costs, far, bounds=wide) == 1, "its features are smaller"
    slow, busy = replace(SERVER, name="slow", slowdown=3.0), replace(SERVER, backlog=0.003)
    found = find_way(planner, costs, BOUNDS, 0.0, None, PAYLOADS, [slow, busy])
    assert found is not None and found.peer == "server"


@pytest.mark.parametrize(
    "peer",
    [
        replace(SERVER, backlog=0.02),
        replace(SERVER, slowdown=20.0),
        replace(SERVER, link=LinkState(1e6, 0.001)),
        replace(SERVER, link=LinkState(0.0, 0.001)),
        replace(SERVER, link=LinkState(inf, 0.02)),
        replace(SERVER, points=FAST[:2]),
        replace(SERVER, points=()),
    ],
)
def test_no_way_breaks_the_cap_on_latency(planner: Planner, costs: CostModel, peer: Peer) -> None:
    assert way_exit(planner, costs, peer) is None
    assert way_exit(planner, costs, peer, SERVER) == 0


def test_what_passes_before_it_begins_counts(planner: Planner, costs: CostModel) -> None:
    assert way_exit(planner, costs, SERVER, delay=0.002) == 0
    assert way_exit(planner, costs, SERVER, delay=0.010) is None


def test_the_joules_of_both_nodes_count(planner: Planner, costs: CostModel) -> None:
    cap = Bounds(min_accuracy=0.8, max_energy=0.15)
    assert way_exit(planner, costs, SERVER, bounds=cap) == 0
    assert way_exit(planner, costs, SERVER, bounds=replace(cap, max_energy=0.13)) is None
    unmetered = replace(SERVER, points=[replace(point, energy=None) for point in FAST])
    assert way_exit(planner, costs, unmetered, bounds=cap) is None
    assert way_exit(planner, costs, unmetered) == 0


def test_only_a_floor_that_can_be_kept_is_worth_a_way(planner: Planner, costs: CostModel) -> None:
    for bounds in (Bounds(), Bounds(max_latency=0.001), Bounds(min_accuracy=0.99)):
        assert way_exit(planner, costs, SERVER, bounds=bounds) is None
    assert way_exit(planner, costs, bounds=BOUNDS) is None
