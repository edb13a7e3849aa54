"""What ``delen simulate`` takes to play a request: microseconds of processor time, from reading the
trace to the summary.

Three tenants with mixed bounds ask the shipped network on this machine's profile, under the default
policy. Then all policies play requests of three tenants that run deep: they have no deadline, or a
distant one. The host takes its time too, which makes for more events, and is no part of what loads
are of.
"""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common import Figure, report
from benchmarks.dispatch_cells import DEFAULT, HERE, Cell, apps_of, full_seconds, model_of
from delen.core.bounds import Bounds
from delen.profile.profile import HostCosts
from delen.simulate.apps import App, Mixed, draw
from delen.simulate.arrivals import Poisson
from delen.simulate.model import SimulatedModel
from delen.simulate.run import RunSettings, run
from delen.simulate.summary import summarise
from delen.simulate.trace import read_trace
from policies.plugins import DISPATCH_POLICIES, find_plugin, plugin_names

LOADS = (0.3, 0.9, 1.5)
DEEP_LOADS = (0.3, 0.9)
DEADLINES = (None, 50.0, 20.0)
"""Of those whose requests run deep, in times of the whole network."""

REQUESTS = 10_000
ROUNDS = 5
LIMIT = 120.0
"""A million requests in two minutes."""

HOST = HostCosts(request=150e-6, batch=100e-6, task=40e-6, answer=80e-6)
"""Of the project's reference machine."""


def write_trace(
    file: Path, load: float, model: SimulatedModel, seed: int, requests: int = REQUESTS
) -> None:
    """As many ``requests`` of three tenants as are expected at ``load``, for ``play``."""
    duration = requests * full_seconds(model) / load
    apps = apps_of(Cell(HERE, "poisson", 3, load), model, duration)
    draw(apps, duration, seed).write(file)


def write_deep_trace(
    file: Path, load: float, model: SimulatedModel, seed: int, requests: int = REQUESTS
) -> None:
    """As ``write_trace``, of requests that nothing but their confidence ends early."""
    seconds = full_seconds(model)
    rate = load / seconds / len(DEADLINES)
    apps = []
    for number, times in enumerate(DEADLINES):
        bounds = Bounds(max_latency=None if times is None else times * seconds)
        apps.append(App(f"app{number}", Poisson(rate), (Mixed(1.0, bounds),)))
    draw(apps, requests * seconds / load, seed).write(file)


def play(file: Path, model: SimulatedModel, name: str = DEFAULT) -> float:
    """Microseconds a request of the trace in ``file`` under the policy ``name``."""
    policy = find_plugin(DISPATCH_POLICIES, name)()
    default = policy if name == DEFAULT else find_plugin(DISPATCH_POLICIES, DEFAULT)()
    gc.collect()
    began = time.process_time()
    trace = read_trace(file)
    gc.freeze()  # as the command does
    outcomes = run(trace, {model.name: model}, policy, default, RunSettings())
    summarise(outcomes, None)
    taken = time.process_time() - began
    gc.unfreeze()
    return 1e6 * taken / len(trace)


def main() -> list[Figure]:
    device = model_of(HERE)
    served = replace(device, profile=replace(device.profile, host=HOST))
    taken: dict[str, list[float]] = {}
    with TemporaryDirectory() as folder:
        for seed in range(ROUNDS):
            for load in LOADS:
                file = Path(folder) / f"{seed}-{load}.csv"
                write_trace(file, load, device, seed)
                taken.setdefault(f"at load {load}", []).append(play(file, served))
            for load in DEEP_LOADS:
                file = Path(folder) / f"{seed}-{load}-deep.csv"
                write_deep_trace(file, load, device, seed, REQUESTS // 2)
                for name in plugin_names(DISPATCH_POLICIES):
                    figure = f"{name}, deep plans at load {load}"
                    taken.setdefault(figure, []).append(play(file, served, name))
    return report(
        "A simulated request",
        [Figure(name, tuple(values), "us", LIMIT) for name, values in taken.items()],
    )


if __name__ == "__main__":
    main()
