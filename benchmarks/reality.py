"""``python -m benchmarks.reality``: the simulator beside what it simulates.

The same requests, three apps with other bounds each (``standard_apps``), are played by an engine in
this process, by a daemon over HTTP, and by the simulator with the profile that both have, which is
measured before each round. Loads are of what the device runs a second to the deepest exit, one at a
time. They and the apps' bounds are by the segments alone, without the host's time. The device takes
one thread (``device.threads``), so that the client has a core of its own.

Latencies are those of receipts. The simulator gets two measurements of the run beside it, no fits:
the speed of the device over time (the daemon's ``delen_slowdown``), since this machine's speed
changes from minute to minute; and the host's time for a request beside the engine's own
(``front``), idle and busy: that of the client's thread in this process, or that of HTTP in the
daemon. "As profiled" is without the first.

Each round takes ten traces and a quarter of a minute: ``--seeds 5 --seconds 20`` some 20 minutes.

No request has an energy cap. Without a sensor a daemon estimates joules from processor time, which
differs by a fifth between requests; then it is luck on both sides whether a cap a little above an
exit's energy is kept.

With ``--minutes`` a daemon is given bursts for so long, and its memory is watched.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import Figure, report, test_images
from benchmarks.reality_sites import (
    OverHttp,
    Seen,
    Setting,
    Site,
    in_process,
    over_http,
    simulate,
    simulate_as_profiled,
)
from benchmarks.standard_apps import Kind, make_trace, standard_apps
from delen.bundle.manifest import MANIFEST, load_bundle, read_manifest
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.profile.cost_model import CostModel
from delen.profile.reader import load_profile
from delen.profile.store import state_file
from delen.replay.inputs import Inputs, draw
from delen.replay.play import Plan
from delen.sdk.inputs import encode
from delen.simulate.load import of_bundle
from delen.simulate.trace import Trace
from policies.plan.planner import PlannerSettings
from policies.plugins import EXIT_POLICIES, find_plugin

BUNDLE = SHIPPED_BUNDLES / "cifar10-resnet"
APPS = 3
IMAGES = 2000
SEEDS, SECONDS = 2, 10.0
_LEVEL = 0.99
_MEMORY_SECONDS = 30.0


class Scene(NamedTuple):
    kind: Kind
    load: float

    def __str__(self) -> str:
        return f"{self.kind} {self.load:g}"


SCENES = (
    *(Scene("poisson", load) for load in (0.3, 0.6, 0.9, 1.2)),
    Scene("bursts", 1.2),
)
BURSTS = SCENES[-1]


@dataclass(frozen=True, slots=True)
class Pair:
    """The summaries of one trace: real, simulated, and simulated as profiled."""

    real: dict[str, Any]
    simulated: dict[str, Any]
    profiled: dict[str, Any]


@dataclass(slots=True)
class Results:
    pairs: dict[tuple[str, Scene], list[Pair]] = field(default_factory=dict)

    def add(self, site: str, scene: Scene, pair: Pair) -> None:
        self.pairs.setdefault((site, scene), []).append(pair)


def prepare(state: Path) -> Setting:
    """Profile the bundle, at its largest size alone, quickly and on one thread, as both sites will
    find it."""
    profiled, folder = state / "profile.json", _of_one_size(state / BUNDLE.name)
    subprocess.run(
        [
            sys.executable, "-m", "delen.commands.main", "profile", "--quick",
            "--bundle", str(folder), "--output", str(profiled), "--config", str(_config(state)),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    bundle, profile = load_bundle(folder), load_profile(profiled)
    file = state_file(state, bundle, profile.device)
    file.parent.mkdir(parents=True)
    profiled.rename(file)
    policy = find_plugin(EXIT_POLICIES, "bounds")(len(bundle.exits))
    model = of_bundle(bundle, profile, PlannerSettings(), policy, _LEVEL, None)
    return Setting(folder, state, model)


def _of_one_size(folder: Path) -> Path:
    """The bundle copied to ``folder``, without its smaller input sizes."""
    shutil.copytree(BUNDLE, folder)
    manifest, _ = read_manifest(folder)
    single = replace(manifest, input=replace(manifest.input, sizes=()), smaller=())
    (folder / MANIFEST).write_text(single.to_json())
    return folder


def _config(state: Path) -> Path:
    file = state / "delen.toml"
    file.write_text("[device]\nthreads = 1\n")
    return file


def trace_of(setting: Setting, scene: Scene, seconds: float, seed: int) -> Trace:
    model = setting.model
    costs = CostModel(replace(model.profile, host=None), model.energy, model.level)
    rate = scene.load / costs.typical(0, costs.segments - 1, 1)
    apps = standard_apps(APPS, rate, scene.kind, model.planner.points(costs))
    return make_trace(apps, seconds, seed)


def plan_of(setting: Setting, trace: Trace, inputs: Inputs, seed: int) -> Plan:
    name = setting.model.name
    given = {name: inputs}
    exits = setting.model.calibration.exits
    return Plan(trace, given, draw(trace, given, name, seed), exits)


def compare(setting: Setting, trace: Trace, seen: Seen, seed: int) -> Pair:
    return Pair(
        seen.summary,
        simulate(trace, setting, seen, seed),
        simulate_as_profiled(trace, setting, seen, seed),
    )


def play_round(
    seed: int, seconds: float, inputs: Inputs, scenes: Sequence[Scene], results: Results
) -> None:
    """All scenes at both sites, with a profile of their own."""
    with tempfile.TemporaryDirectory() as folder:
        setting = prepare(Path(folder))
        traces = {scene: trace_of(setting, scene, seconds, seed) for scene in scenes}

        def play(name: str, site: Site) -> None:
            for scene, trace in traces.items():
                seen = site.play(plan_of(setting, trace, inputs, seed))
                pair = compare(setting, trace, seen, seed)
                results.add(name, scene, pair)
                print(_line(name, scene, seed, pair, seen), flush=True)

        with in_process(setting) as engine:
            play("in process", engine)
        with over_http(setting, tensor_of(inputs)) as server:
            play("over HTTP", server)


def watch_memory(minutes: float, inputs: Inputs) -> list[Figure]:
    """Bursts at load 1.2 on one daemon for so long: its memory, which has to stay."""
    with tempfile.TemporaryDirectory() as folder:
        setting = prepare(Path(folder))
        with over_http(setting, tensor_of(inputs)) as server:
            held = list(_memory(server, setting, inputs, minutes))
    first, last = held[len(held) // 5], held[-1]
    return [
        Figure("memory of the daemon, after a fifth of the time", (first / 1e6,), "MB"),
        Figure(f"after {minutes:g} minutes of bursts at 1.2", (last / 1e6,), "MB"),
        Figure("grown since", ((last - first) / first,), "", 0.05),
    ]


def _memory(server: OverHttp, setting: Setting, inputs: Inputs, minutes: float) -> Sequence[int]:
    held = []
    for seed in range(max(2, round(60 * minutes / _MEMORY_SECONDS))):
        trace = trace_of(setting, BURSTS, _MEMORY_SECONDS, seed)
        server.play(plan_of(setting, trace, inputs, seed))
        held.append(server.resident)
    return held


def figures(results: Results) -> list[Figure]:
    made = []
    for (site, scene), pairs in results.pairs.items():
        name = f"{site}, {scene}:"
        made += [
            Figure(f"{name} p95", tuple(_p95(pair.real) for pair in pairs), "ms"),
            Figure(f"{name} p95, simulated", tuple(_p95(pair.simulated) for pair in pairs), "ms"),
            Figure(
                f"{name} p95, off by",
                tuple(map(_p95_off, pairs)),
                "",
                None if scene == BURSTS else 0.10,
            ),
            Figure(
                f"{name} p95 as profiled, off by",
                tuple(abs(_p95(pair.profiled) / _p95(pair.real) - 1) for pair in pairs),
                "",
            ),
            Figure(f"{name} exits, share elsewhere", tuple(map(_exits_off, pairs)), "", 0.10),
            Figure(f"{name} violations", tuple(100 * _broken(pair.real) for pair in pairs), "%"),
            Figure(
                f"{name} violations, off by",
                tuple(100 * abs(_broken(p.real) - _broken(p.simulated)) for p in pairs),
                "points",
                5.0 if scene == BURSTS else 1.0,
            ),
        ]
        if scene == BURSTS:
            made.append(
                Figure(
                    f"{name} effective accuracy, off by",
                    tuple(100 * abs(_right(p.real) - _right(p.simulated)) for p in pairs),
                    "points",
                    5.0,
                )
            )
    return made


def _p95(summary: dict[str, Any]) -> float:
    return float(summary["latency_ms"]["p95"])


def _p95_off(pair: Pair) -> float:
    return abs(_p95(pair.simulated) / _p95(pair.real) - 1)


def _exits_off(pair: Pair) -> float:
    """The share of answers that would have to come from another exit."""
    real, simulated = np.array(pair.real["exits"]), np.array(pair.simulated["exits"])
    return float(np.abs(real - simulated).sum() / 2)


def _broken(summary: dict[str, Any]) -> float:
    return float(summary["violations"])


def _right(summary: dict[str, Any]) -> float:
    return float(summary["effective_accuracy"])


def _line(site: str, scene: Scene, seed: int, pair: Pair, seen: Seen) -> str:
    def part(summary: dict[str, Any]) -> str:
        exits = " ".join(f"{share:.2f}" for share in summary["exits"])
        return (
            f"p95 {_p95(summary):6.1f} broken {100 * _broken(summary):5.2f}% right "
            f"{_right(summary):.3f} exits {exits}; refused {_counts(summary['refused_why'])}, "
            f"missed {_counts(summary['missed'])}"
        )

    speeds = [factor for _, factor in seen.slowdown] or [1.0]
    return (
        f"{site:<10} {scene!s:<12} {seed} slowdown {np.mean(speeds):.2f} front "
        f"{1e3 * seen.front[0]:.2f}+{1e3 * seen.front[1]:.2f} ms, crowded "
        f"{1e3 * sum(seen.crowded):.2f} ms\n  real {part(pair.real)}\n  "
        f"sim. {part(pair.simulated)}\n  prof {part(pair.profiled)}"
    )


def _counts(counts: dict[str, int]) -> str:
    return " ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"


def tensor_of(inputs: Inputs) -> bytes:
    """The first input as raw bytes, without the head of its .npy file."""
    return np.load(BytesIO(inputs.bodies[0].body)).tobytes()


def _inputs() -> Inputs:
    images = test_images(IMAGES)
    labels = np.asarray(images.labels, np.int64)
    return Inputs("files", tuple(map(encode, images.inputs)), labels)


def main(
    seeds: int = SEEDS,
    seconds: float = SECONDS,
    scenes: Sequence[Scene] = SCENES,
    minutes: float = 0.0,
) -> list[Figure]:
    inputs, results = _inputs(), Results()
    for seed in range(seeds):
        play_round(seed, seconds, inputs, scenes, results)
    made = figures(results)
    if minutes:
        made += watch_memory(minutes, inputs)
    return report(f"Real and simulated, {seeds} times {seconds:g} s a scene, {APPS} apps", made)


def _command() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reality")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each trace")
    listed = ", ".join(f"{number}: {scene}" for number, scene in enumerate(SCENES))
    parser.add_argument(
        "--scene",
        nargs="+",
        action="extend",
        type=int,
        choices=range(len(SCENES)),
        metavar="N",
        help=listed,
    )
    parser.add_argument("--minutes", type=float, default=0.0, help="watch a daemon's memory")
    options = parser.parse_args()
    scenes = [SCENES[number] for number in options.scene or range(len(SCENES))]
    made = main(options.seeds, options.seconds, scenes, options.minutes)
    return int(any(figure.holds is False for figure in made))


if __name__ == "__main__":
    raise SystemExit(_command())
