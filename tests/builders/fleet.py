"""Standings, demands and mappings of a small fleet."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product

from policies.fleet.api import Demand, LinkState, OperatingPoint, ServedModel, Size, Standing
from policies.fleet.problem import Place, Problem, make_problem

MS = 1e-3
MODEL = "cifar"


def point(
    exit: int,
    accuracy: float,
    *latencies: float,
    payload: float = 0.0,
    size: Size | None = None,
) -> OperatingPoint:
    """Latencies in milliseconds, by batch size."""
    return OperatingPoint(exit, accuracy, tuple(MS * each for each in latencies), payload, size)


POINTS = (
    point(0, 0.6, 5, 6, 7, 8),
    point(1, 0.7, 10, 13, 16, 19),
    point(2, 0.8, 20, 28, 36, 44),
)


def standing(
    node: str,
    said: float = 0.0,
    points: Sequence[OperatingPoint] = POINTS,
    bundle: str = "sha256:a",
    **more: float,
) -> Standing:
    return Standing(node, said, (ServedModel(MODEL, bundle, tuple(points)),), **more)


def demand(
    client: str,
    fps: float = 10.0,
    deadline: float = 0.1,
    tenant: str = "default",
    **links: LinkState,
) -> Demand:
    reached = links or {"near": LinkState(), "far": LinkState()}
    return Demand(client, MODEL, fps, deadline, reached, tenant)


def draw_problem(seed: int, nodes: int, clients: int) -> Problem:
    """A problem with links and deadlines of all kinds."""
    chance = random.Random(seed)
    points = [
        point(0, 0.5, 4, 5, 6, payload=10e3, size=(64, 64)),
        point(1, 0.7, 9, 12, 15, payload=10e3, size=(64, 64)),
        point(0, 0.65, 8, 11, 14, payload=30e3, size=(128, 128)),
        point(1, 0.85, 18, 25, 32, payload=30e3, size=(128, 128)),
    ]
    standings = [
        standing(f"n{n}", points=points, slowdown=chance.choice((1.0, 1.5))) for n in range(nodes)
    ]
    demands = []
    for client in range(clients):
        links = {
            f"n{n}": LinkState(chance.uniform(0.3e6, 4e6), chance.uniform(0, 5e-3))
            for n in range(nodes)
        }
        fps, deadline = chance.choice((10, 15, 25)), chance.choice((0.05, 0.075, 0.1))
        demands.append(Demand(f"c{client}", MODEL, fps, deadline, links))
    return make_problem(standings, demands)


def all_mappings(problem: Problem, one_point: bool) -> list[tuple[Place | None, ...]]:
    """Every feasible mapping, by trying all; ``one_point``: with one point a node."""
    places: list[Place | None] = [None]
    for node, points in enumerate(problem.points):
        places += [(node, each) for each in range(len(points))]
    found = []
    for mapping in product(places, repeat=len(problem.clients)):
        used = {place for place in mapping if place is not None}
        if one_point and len({node for node, _ in used}) < len(used):
            continue
        if problem.feasible(mapping):
            found.append(mapping)
    return found
