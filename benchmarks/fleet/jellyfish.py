"""Fleet policies on Jellyfish's grid: clients, deadlines and frame rates over three link traces.

Profiles are its formulas (``src/simulation/env.py`` of vuhpdc/jellyfish) at the input sides where
they give a positive accuracy: accuracy ``.988 − 4.469·e^(−r/200)`` of side r, latency
``(.08315·r² − .04463·r + .03757)/1000`` ms, of a batch of b ``(.75 + .25·(b − 1))`` times that, a
frame ``3/8·r²`` bytes. Two nodes; every client has its own link, a stretch of the trace from a
random time on.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.common import Figure, data_folder, report
from delen.simulate.fleet.run import play
from delen.simulate.fleet.site import (
    ClientSettings,
    HubSettings,
    NodeModel,
    NodeSettings,
    Place,
    Site,
)
from delen.simulate.streams.bandwidth import Bandwidth, read_bandwidth
from delen.simulate.streams.link import LinkSettings
from policies.fleet.api import OperatingPoint, ServedModel
from policies.plugins import make_fleet

SIDES = range(320, 641, 32)
BATCHES = range(1, 9)
CLIENTS = range(1, 9)
DEADLINES = (0.075, 0.1, 0.15)
RATES = (15, 25)
TRACES = ("wifi", "lte_upload", "synthetic")
POLICIES = ("default", "jellyfish", "exact")
NODES = 2
SECONDS = 10.0
SEEDS = range(100, 105)
"""Others than those that constants were chosen on (0 to 9)."""
DELAY = 0.001
MODEL = "detector"
PLANNED = 1.05
"""What is planned with, over the median."""


def points() -> tuple[OperatingPoint, ...]:
    made = []
    for side in SIDES:
        seconds = (0.08315 * side**2 - 0.04463 * side + 0.03757) / 1e6
        latencies = tuple(PLANNED * seconds * (0.75 + 0.25 * (b - 1)) for b in BATCHES)
        accuracy = 0.988 - 4.469 * math.exp(-side / 200)
        made.append(OperatingPoint(0, accuracy, latencies, 3 / 8 * side**2, (side, side)))
    return tuple(made)


def node(name: str) -> NodeSettings:
    served = ServedModel(MODEL, "jellyfish", points())
    typical = tuple(tuple(t / PLANNED for t in point.latencies) for point in served.points)
    return NodeSettings(name, (NodeModel(served, typical),))


def trace(name: str) -> Bandwidth:
    bandwidth = read_bandwidth(data_folder() / "traces" / f"jellyfish_{name}_trace.txt")
    if name != "synthetic":
        return bandwidth
    return Bandwidth(20 * bandwidth.times, bandwidth.rates, 20 * bandwidth.end)


def site(bandwidth: Bandwidth, clients: int, deadline: float, fps: float) -> Site:
    names = [f"gpu{number}" for number in range(NODES)]
    place = Place("hall", LinkSettings(bandwidth, DELAY), dict.fromkeys(names, DELAY))
    cameras = tuple(
        ClientSettings(f"camera{number}", MODEL, fps, deadline, "hall") for number in range(clients)
    )
    hub = HubSettings(period=0.5, standing=0.5, delay=0.001)
    return Site(SECONDS, tuple(map(node, names)), {"hall": place}, cameras, hub)


Cell = tuple[str, int, float, float]


def cells() -> list[Cell]:
    return [
        (name, clients, deadline, fps)
        for name in TRACES
        for deadline in DEADLINES
        for fps in RATES
        for clients in CLIENTS
    ]


def main() -> list[Figure]:
    traces = {name: trace(name) for name in TRACES}
    ratios: dict[str, list[float]] = {"jellyfish": [], "exact": []}
    reached: dict[str, list[float]] = {name: [] for name in POLICIES}
    tails = []
    print(
        f"{'trace':<10} {'clients':>7} {'deadline':>8} {'fps':>4} "
        + " ".join(f"{name:>22}" for name in POLICIES)
    )
    for cell in cells():
        name, clients, deadline, fps = cell
        played = site(traces[name], clients, deadline, fps)
        summaries = {
            policy: [play(played, make_fleet(policy), seed).summary() for seed in SEEDS]
            for policy in POLICIES
        }
        values = {
            policy: [each["effective_accuracy"] for each in runs]
            for policy, runs in summaries.items()
        }
        print(
            f"{name:<10} {clients:>7} {1e3 * deadline:>5.0f} ms {fps:>4} "
            + " ".join(
                f"{np.median(each):>8.4f} [{min(each):.3f} {max(each):.3f}]"
                for each in values.values()
            ),
            flush=True,
        )
        for policy, each in values.items():
            reached[policy].append(float(np.median(each)))
        for other, shares in ratios.items():
            paired = np.array(values["default"]) / np.maximum(values[other], 1e-9)
            shares.append(float(np.median(paired)))
        tails += [
            each["latency_ms"]["p99"] / (1e3 * deadline)
            for each in summaries["default"]
            if each["latency_ms"]["p99"] is not None
        ]
    return report(
        "Fleet policies on Jellyfish's grid",
        [
            *(
                Figure(f"effective accuracy, {name}", tuple(each), "")
                for name, each in reached.items()
            ),
            Figure(
                "default over jellyfish, every cell", (min(ratios["jellyfish"]),), "", 1.0, False
            ),
            Figure("default over exact, every cell", (min(ratios["exact"]),), "", 0.98, False),
            Figure("p99 of answers over the deadline, worst", (max(tails),), "", 1.0),
        ],
    )


if __name__ == "__main__":
    main()
