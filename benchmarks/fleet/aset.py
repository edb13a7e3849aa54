"""ASET's learner against the static policies that it picks among, on three topologies.

Tasks of a cluster (20,000 over 3.5 days, from Alibaba's public trace) are streams of frames: a
stretch of the trace is played in a minute, so its bursts are what they are. *Cloud*: two small edge
nodes and a large one far away. *Co-located*: three sites of middle size near the places where
clients are, and a fourth farther away. *Full-edge*: a small node at every place, none elsewhere.

``python -m benchmarks.fleet.aset DIR`` writes sites to train on, of another part of the trace:
``delen train-policy --fleet DIR/*.toml --output weights.py``.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.common import Figure, data_folder, report
from benchmarks.profile_files import TX2_RESNET18
from delen.simulate.fleet.run import play
from delen.simulate.fleet.site import Site
from delen.simulate.fleet.site_file import read_site
from policies.fleet.static import STATIC
from policies.plugins import make_fleet

MODEL = "resnet18"
PAYLOAD = 20e3
PLACES = 4
MBPS = 60.0
SECONDS = 60.0
TASKS = 120
TEST_SEEDS = range(2000, 2007)
LEARNT, TESTED = (0.0, 0.7), (0.7, 1.0)
"""Parts of the trace. The shipped weights learnt from all of it; those trained on what this module
writes did not see what is tested."""

DEADLINES_MS = (60, 80, 120)
TRAINING_SITES = 270
TRAINING_SECONDS = 30.0
RATES = (5.0, 10.0, 20.0)
LEARNER = "aset"

Topology = Mapping[str, tuple[float, float, tuple[float, ...]]]
"""Of each node its speed, its price, and its delay from every place in milliseconds."""

TOPOLOGIES: Mapping[str, Topology] = {
    "cloud": {
        "edge0": (1.0, 3.0, (2, 2, 6, 6)),
        "edge1": (1.0, 3.0, (6, 6, 2, 2)),
        "cloud": (6.0, 1.0, (18, 18, 18, 18)),
    },
    "co-located": {
        "site0": (2.0, 2.0, (2, 5, 8, 8)),
        "site1": (2.0, 2.0, (8, 2, 5, 8)),
        "site2": (2.0, 2.0, (8, 8, 2, 5)),
        "site3": (2.0, 1.0, (12, 12, 12, 12)),
    },
    "full-edge": {
        f"edge{n}": (1.5, 1.0, tuple(1.0 if n == place else 9.0 for place in range(PLACES)))
        for n in range(PLACES)
    },
}


@cache
def _tasks() -> tuple[tuple[float, float], ...]:
    with (data_folder() / "traces" / "cluster_tasks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(sorted((float(row["start_s"]), float(row["end_s"])) for row in rows))


def site_text(topology: Topology, seed: int, seconds: float, part: tuple[float, float]) -> str:
    """A site file: the topology with a stretch of a ``part`` of the trace; ``seed`` chooses it."""
    rng = np.random.default_rng((seed, 11))
    sizes = f'[{{ profile = "{TX2_RESNET18}", payload_bytes = {PAYLOAD} }}]'
    lines = [f"seconds = {seconds}"]
    for name, (speed, price, _) in topology.items():
        lines += ["[[nodes]]", f'name = "{name}"', f"speed = {speed}", f"price = {price}"]
        lines.append(f'models = [{{ name = "{MODEL}", sizes = {sizes} }}]')
    for place in range(PLACES):
        delays = ", ".join(f"{name} = {each[2][place]}" for name, each in topology.items())
        lines += ["[[places]]", f'name = "place{place}"', f"mbps = {MBPS}"]
        lines.append(f"delays_ms = {{ {delays} }}")
    tasks = _tasks()
    low, high = (int(share * len(tasks)) for share in part)
    first = int(rng.integers(low, high - TASKS))
    stretch = tasks[first : first + TASKS]
    began = stretch[0][0]
    scale = seconds / max(1.0, stretch[-1][0] - began)
    favourite = rng.dirichlet(np.full(PLACES, 0.7))
    for number, (start, end) in enumerate(stretch):
        at = (start - began) * scale
        lasts = float(np.clip((end - start) * scale, 3.0, seconds / 3))
        lines += [
            "[[clients]]",
            f'name = "task{number}"',
            f'model = "{MODEL}"',
            f"fps = {rng.choice(RATES)}",
            f"deadline_ms = {rng.choice(DEADLINES_MS)}",
            f'place = "place{rng.choice(PLACES, p=favourite)}"',
            f"from_s = {min(at, seconds - 1.0)}",
            f"until_s = {min(seconds, at + lasts)}",
        ]
    return "\n".join(lines) + "\n"


def site(topology: Topology, seed: int) -> Site:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "site.toml"
        file.write_text(site_text(topology, seed, SECONDS, TESTED))
        return read_site(file)


def write_training_sites(folder: Path) -> None:
    """Sites of the part of the trace that is not tested, the topologies in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(TOPOLOGIES)
    for number in range(TRAINING_SITES):
        name = names[number % len(names)]
        text = site_text(TOPOLOGIES[name], number, TRAINING_SECONDS, LEARNT)
        (folder / f"{number:03}-{name}.toml").write_text(text)


def main() -> list[Figure]:
    names = [LEARNER, *(policy.name for policy in STATIC), "default"]
    reached: dict[str, dict[str, float]] = {name: {} for name in names}
    print(f"{'':<16} " + " ".join(f"{topology:>22}" for topology in TOPOLOGIES) + "    mean")
    for name in names:
        row = []
        for topology, each in TOPOLOGIES.items():
            values = [
                play(site(each, seed), make_fleet(name), seed).summary()["effective_accuracy"]
                for seed in TEST_SEEDS
            ]
            reached[name][topology] = float(np.median(values))
            row.append(f"{np.median(values):.4f} [{min(values):.3f} {max(values):.3f}]")
        mean = np.mean(list(reached[name].values()))
        print(
            f"{name:<16} " + " ".join(f"{each:>22}" for each in row) + f" {mean:>7.4f}", flush=True
        )
    learner = reached[LEARNER]
    figures = []
    for topology in TOPOLOGIES:
        best = max(reached[policy.name][topology] for policy in STATIC)
        over = 100 * (learner[topology] - best)
        figures.append(
            Figure(f"{topology}: learner over the best static", (over,), "points", -0.5, False)
        )
    means = [np.mean(list(reached[policy.name].values())) for policy in STATIC]
    over = 100 * float(np.mean(list(learner.values())) - max(means))
    figures.append(
        Figure("mean: learner over the best fixed choice", (over,), "points", 0.0, False)
    )
    return report("ASET's learner on three topologies", figures)


if __name__ == "__main__":
    write_training_sites(Path(sys.argv[1]))
