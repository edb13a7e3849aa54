"""What fleet policies take to decide, on the profile of Jellyfish's grid.

Every policy decides for 32 clients and 4 nodes, without a last decision to go on from. Then it has
10 clients, and 10,000: a route must not take longer for there being more.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.common import Figure, report
from benchmarks.fleet.jellyfish import DEADLINES, DELAY, MODEL, points
from policies.fleet.api import Demand, LinkState, ServedModel, Standing
from policies.plugins import FLEET_POLICIES, make_fleet, plugin_names

CLIENTS, NODES = 32, 4
FEW, MANY = 10, 10_000
ROUNDS = 10
ROUTES = 500
MBPS = (7.5, 50.0)
RATES = (10.0, 15.0, 25.0)


def fleet(clients: int, seed: int) -> tuple[list[Standing], list[Demand]]:
    rng = np.random.default_rng(seed)
    nodes = [Standing(f"gpu{n}", 0.0, (ServedModel(MODEL, "b", points()),)) for n in range(NODES)]
    demands = []
    for number in range(clients):
        links = {each.node: LinkState(rng.uniform(*MBPS) * 1e6 / 8, DELAY) for each in nodes}
        fps, deadline = float(rng.choice(RATES)), float(rng.choice(DEADLINES))
        demands.append(Demand(f"c{number}", MODEL, fps, deadline, links))
    return nodes, demands


def decision_ms(name: str) -> list[float]:
    """Processor time of decisions."""
    taken = []
    for seed in range(ROUNDS):
        nodes, demands = fleet(CLIENTS, seed)
        policy = make_fleet(name)
        began = time.process_time()
        policy.coordinate(nodes, demands, 0.0)
        taken.append(1e3 * (time.process_time() - began))
    return taken


def route_us(name: str, clients: int) -> tuple[float, float]:
    """Processor time of a route among ``clients``, and the seconds of the decision before it."""
    nodes, demands = fleet(clients, 0)
    policy = make_fleet(name)
    began = time.process_time()
    policy.coordinate(nodes, demands, 0.0)
    decided = time.process_time() - began
    asking = demands[:: max(1, clients // ROUTES)]
    rounds = ROUTES // len(asking)
    began = time.process_time()
    for _ in range(rounds):
        for demand in asking:
            policy.route(demand, nodes, 0.1)
    return 1e6 * (time.process_time() - began) / (rounds * len(asking)), decided


def main() -> list[Figure]:
    figures, slower = [], 0.0
    head = f"{CLIENTS} clients, ms"
    print(
        f"{'policy':<16} {head:>14} {'route µs, 10':>13} {'10,000':>7} {'decision s, 10,000':>19}"
    )
    for name in plugin_names(FLEET_POLICIES):
        decisions = decision_ms(name)
        (few, _), (many, seconds) = route_us(name, FEW), route_us(name, MANY)
        print(
            f"{name:<16} {np.median(decisions):>14.2f} {few:>13.0f} {many:>7.0f} {seconds:>19.2f}",
            flush=True,
        )
        figures.append(Figure(f"{name}: decision", tuple(decisions), "ms", 50.0))
        slower = max(slower, many)
    figures.append(Figure("route among 10,000 clients, slowest policy", (slower,), "µs", 1000.0))
    return report(f"Decisions of fleet policies, {CLIENTS} clients and {NODES} nodes", figures)


if __name__ == "__main__":
    main()
