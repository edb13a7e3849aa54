"""Paths over a board and a machine eight times as fast (CoDE), over every bandwidth trace.

The board is a Jetson Nano with Dělen's published ResNet-50 profile; exits' confidences are
synthetic for its accuracies. Frames of 20 kB at 25 a second are due after 50 ms. Features are those
of ResNet-50 at 224 pixels in int8. Sending costs the board 1 µJ a byte (assumed). An answer that
comes late counts as 0, unless an earlier exit's answer was in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.common import Figure, data_folder, report
from benchmarks.profile_files import NANO
from delen.bundle.calibration import Calibration
from delen.profile.reader import load_profile
from delen.simulate.streams.bandwidth import Bandwidth, read_bandwidth
from delen.simulate.streams.link import FrameDraws, Link, LinkSettings
from delen.simulate.synthetic import synthetic
from policies.fleet.api import LinkState
from policies.fleet.paths import (
    AllAt,
    DelayRule,
    ExitTable,
    PathNetwork,
    PathNode,
    PathPolicy,
    Paths,
    QueueRule,
    transfer,
)

FPS = 25.0
DEADLINE = 0.05
SECONDS = 60.0
SEEDS = range(100, 105)
"""Others than those that constants were chosen on (0 to 9)."""
SPEED = 8.0
DELAY = 0.004
INPUT = 20e3
FEATURES = (256 * 56 * 56.0, 512 * 28 * 28.0, 1024 * 14 * 14.0)
PER_BYTE = 1e-6
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 2.0)
"""The last is never reached: nobody leaves early."""

NOISE = 0.02
PLANNED = 1.02
"""The profile's 99th percentile, which is planned with, over its median."""

WINDOW = 1.0
SAMPLES = int(SECONDS * FPS)
"""Every run is about each sample of the table once."""

EQUAL = 0.005
"""Accuracies that are not told apart."""


def policies() -> tuple[PathPolicy, ...]:
    return Paths(), AllAt(0, THRESHOLDS[-1]), AllAt(1, THRESHOLDS[-1]), QueueRule(), DelayRule()


def network(table: Calibration) -> PathNetwork:
    tables, last = [], table.exits - 1
    for threshold in THRESHOLDS:
        shares = table.exit_shares(threshold, last)
        reaches = tuple(1 - sum(shares[:exit]) for exit in range(table.exits))
        accuracy = tuple(
            float(table.right_answers(threshold, exit).mean()) for exit in range(table.exits)
        )
        tables.append(ExitTable(threshold, reaches, accuracy))
    return PathNetwork(INPUT, FEATURES, tuple(tables))


def nodes() -> tuple[PathNode, PathNode]:
    profile = load_profile(NANO)
    costs = [profile.cost(segment, 1) for segment in range(len(profile.segments))]
    seconds = tuple(cost.latency.p99 for cost in costs)
    joules = tuple(cost.energy or 0.0 for cost in costs)
    board = PathNode("board", seconds, joules, per_byte=PER_BYTE)
    machine = PathNode("machine", tuple(each / SPEED for each in seconds), (0.0,) * len(costs))
    return board, machine


def traces() -> dict[str, Bandwidth]:
    folder = data_folder() / "traces"
    files = [*sorted(folder.glob("jellyfish_*.txt")), *sorted(folder.glob("bandwidth/*.csv"))]
    return {
        file.stem.removeprefix("jellyfish_").removesuffix("_trace"): read_bandwidth(file)
        for file in files
    }


@dataclass(frozen=True, slots=True)
class Outcome:
    accuracy: float
    late: float
    joules: float


def play(bandwidth: Bandwidth, table: Calibration, policy: PathPolicy, seed: int) -> Outcome:
    """All frames of a run: the share answered right and in time, the share without any answer in
    time, and the board's joules a frame."""
    rng = np.random.default_rng(seed)
    spare = bandwidth.end - SECONDS - 1
    if spare > 0:
        bandwidth = bandwidth.part(rng.uniform(0, spare), SECONDS + 1)
    link = Link(LinkSettings(bandwidth, DELAY), SECONDS + 1, seed)
    planned, both = network(table), nodes()
    free = [0.0, 0.0]
    sent: list[tuple[float, float, float]] = []
    right, late, joules = 0.0, 0, 0.0
    times = np.arange(rng.uniform(0, 1 / FPS), SECONDS, 1 / FPS)
    samples = np.resize(rng.permutation(table.samples), len(times)).tolist()
    factors = np.exp(rng.normal(0.0, NOISE, (len(times), table.exits))).tolist()
    for captured, sample, noise in zip(times.tolist(), samples, factors, strict=True):
        known = [each for each in sent if captured - WINDOW <= each[0] <= captured]
        believed = (
            sum(each[1] for each in known) / sum(each[2] for each in known)
            if known
            else float(bandwidth.at(np.array([captured]))[0])
        )
        queued = sum(each[1] for each in sent if each[0] > captured)
        way = LinkState(believed, DELAY + (queued / believed if believed else 0.0) / 2)
        back = LinkState(believed, DELAY)
        views = [replace(node, backlog=max(0.0, free[n] - captured)) for n, node in enumerate(both)]
        choice = policy.choose(planned, views, ((way, way), (back, back)), FPS, DEADLINE)
        now, here, answer = captured, 0, None
        for segment, node in enumerate(choice.path):
            if node != here:
                state = LinkState(max(believed, 1.0), DELAY)
                _, payload, anew = transfer(planned, segment, both[node], state)
                draws = FrameDraws(1.0, 0.0, 0.0, (1.0, 1.0))
                start = max(now, link.free)
                arrived = link.send(now, payload, captured + 1.0, draws)
                joules += PER_BYTE * payload
                sent.append((link.free, payload, max(link.free - start, 1e-6)))
                if arrived == float("inf"):
                    break
                now, here = max(arrived, free[node]) + anew, node
            now = max(now, free[node]) if segment == 0 or node else now
            now += noise[segment] * both[node].seconds[segment] / PLANNED
            free[node] = max(free[node], now)
            joules += both[node].joules[segment]
            if now + (DELAY if node else 0.0) <= captured + DEADLINE:
                answer = segment
            if table.confidence[sample, segment] >= choice.threshold:
                break
        if answer is None:
            late += 1
        else:
            right += float(table.correct[sample, answer])
    return Outcome(right / len(times), late / len(times), joules / len(times))


def main() -> list[Figure]:
    profile = load_profile(NANO)
    assert profile.accuracies is not None
    table = synthetic(profile.accuracies, SAMPLES, 0)
    names = [policy.name for policy in policies()]
    gains: dict[str, list[float]] = {name: [] for name in names}
    joules: dict[str, list[float]] = {name: [] for name in names}
    print(f"{'trace':<14} " + " ".join(f"{name:>22}" for name in names))
    print(f"{'':<14} " + " ".join(f"{'accuracy':>14} {'mJ':>7}" for _ in names))
    for trace, bandwidth in traces().items():
        row = []
        for number, name in enumerate(names):
            runs = [play(bandwidth, table, policies()[number], seed) for seed in SEEDS]
            accuracies = [run.accuracy for run in runs]
            spent = float(np.median([run.joules for run in runs]))
            gains[name].append(float(np.median(accuracies)))
            joules[name].append(1e3 * spent)
            low, high = min(accuracies), max(accuracies)
            row.append(f"{np.median(accuracies):.3f} [{low:.2f} {high:.2f}] {1e3 * spent:>5.0f}")
        print(f"{trace:<14} " + " ".join(f"{each:>22}" for each in row), flush=True)
    figures = _figures(gains, joules)
    return report("Paths over a board and a machine", figures)


def _figures(gains: dict[str, list[float]], joules: dict[str, list[float]]) -> Sequence[Figure]:
    ours = np.array(gains["paths"])
    figures = [
        Figure(f"effective accuracy, {name}", tuple(each), "") for name, each in gains.items()
    ]
    figures += [
        Figure(f"joules of the board, {name}", tuple(each), "mJ") for name, each in joules.items()
    ]
    for name in ("local", "remote"):
        least = float((ours - np.array(gains[name])).min())
        figures.append(
            Figure(f"accuracy of paths over {name}, least of all", (least,), "", -EQUAL, False)
        )
    return figures


if __name__ == "__main__":
    main()
