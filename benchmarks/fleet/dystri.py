"""Prices a node and tenant (Dystri-style) as users grow: three nodes, two models.

The networks are the published profiles of a Jetson TX2 (ResNet-50 and ResNet-18) on devices that
are 1, 2 and 4 times as fast. Eight users at a time, half of each model, 10 frames a second, due
after 150 ms, over links of 50 Mbit/s: × 1 to × 8. The capacity is the largest number of users that
some distribution over the nodes serves at the first exit, found by enumeration.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from benchmarks.common import Figure, report
from benchmarks.profile_files import TX2_RESNET18, TX2_RESNET50
from delen.profile.reader import load_profile
from delen.simulate.fleet.points import node_model
from delen.simulate.fleet.run import play
from delen.simulate.fleet.site import ClientSettings, NodeSettings, Place, Site
from delen.simulate.streams.bandwidth import constant
from delen.simulate.streams.link import LinkSettings
from policies.plugins import make_fleet

SPEEDS = (1.0, 2.0, 4.0)
MODELS = {"resnet50": TX2_RESNET50, "resnet18": TX2_RESNET18}
FPS = 10.0
DEADLINE = 0.15
USERS = 8
FACTORS = range(1, 9)
SECONDS = 30.0
SEEDS = range(100, 105)
"""Others than those that constants were chosen on (0 to 9)."""
PAYLOAD = 20e3
DELAY = 0.002
POLICIES = ("prices", "default")
GREEDY = ("least_impedance", "load_balance", "random_load")
"""Each user takes the node of one rule, and the deepest exit that is on time there."""


def nodes() -> tuple[NodeSettings, ...]:
    profiles = {name: load_profile(file) for name, file in MODELS.items()}
    return tuple(
        NodeSettings(
            f"node{number}",
            tuple(
                node_model(name, [(None, PAYLOAD, profile)], None, speed, 1.0)
                for name, profile in profiles.items()
            ),
        )
        for number, speed in enumerate(SPEEDS)
    )


def site(users: int) -> Site:
    made = nodes()
    place = Place(
        "hall",
        LinkSettings(constant(50.0, SECONDS), DELAY),
        {node.name: DELAY for node in made},
    )
    names = list(MODELS)
    clients = tuple(
        ClientSettings(f"user{n}", names[n % 2], FPS, DEADLINE, "hall", tenant=f"user{n}")
        for n in range(users)
    )
    return Site(SECONDS, made, {"hall": place}, clients)


def capacity() -> int:
    """The most users, half of each model, whose first exits the nodes have time for."""
    loads = [[FPS * model.typical[0][0] for model in node.models] for node in nodes()]
    users = 0
    while _served(loads, (users + 2) // 2):
        users += 2
    return users


def _served(loads: list[list[float]], each: int) -> bool:
    """Whether ``each`` users of both models can be distributed."""
    counts = range(each + 1)
    for first in product(counts, repeat=len(loads)):
        if sum(first) != each:
            continue
        left = [1 - count * load[0] for count, load in zip(first, loads, strict=True)]
        if min(left) < 0:
            continue
        if sum(int(rest / load[1]) for rest, load in zip(left, loads, strict=True)) >= each:
            return True
    return False


def main() -> list[Figure]:
    most = capacity()
    print(f"capacity: {most} users\n")
    names = (*POLICIES, *GREEDY)
    print(f"{'users':>5} " + " ".join(f"{name:>30}" for name in names))
    print(f"{'':>5} " + " ".join(f"{'accuracy':>21} {'missed %':>8}" for _ in names))
    worst: dict[str, list[float]] = {name: [] for name in POLICIES}
    over: dict[str, list[float]] = {name: [] for name in POLICIES}
    for factor in FACTORS:
        played = site(USERS * factor)
        runs = {
            name: [play(played, make_fleet(name), seed).summary() for seed in SEEDS]
            for name in names
        }
        accuracies = {
            name: [each["effective_accuracy"] for each in each_run]
            for name, each_run in runs.items()
        }
        misses = {
            name: [100 * each["miss_rate"] for each in each_run] for name, each_run in runs.items()
        }
        print(
            f"{USERS * factor:>5} "
            + " ".join(
                f"{np.median(accuracies[name]):>7.4f} [{min(accuracies[name]):.3f} "
                f"{max(accuracies[name]):.3f}] {np.median(misses[name]):>8.2f}"
                for name in names
            ),
            flush=True,
        )
        greedy = max(float(np.median(accuracies[name])) for name in GREEDY)
        for name in POLICIES:
            over[name].append(float(np.median(accuracies[name])) / greedy)
            if USERS * factor <= most:
                worst[name] += misses[name]
    figures = [
        figure
        for name in POLICIES
        for figure in (
            Figure(f"{name}: missed of frames sent, worst run", (max(worst[name]),), "%", 0.5),
            Figure(
                f"{name}: accuracy over the best greedy, least", (min(over[name]),), "", 1.0, False
            ),
        )
    ]
    return report("Prices a node and tenant as users grow", figures)


if __name__ == "__main__":
    main()
