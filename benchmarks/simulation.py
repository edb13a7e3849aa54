"""What ``delen simulate`` takes to play a request under the default policy: microseconds of
processor time, from reading the trace to the summary.

Three tenants with mixed bounds ask the shipped network on this machine's profile. The host takes
its time too, which makes for more events, and is no part of what loads are of.
"""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common import Figure, report
from benchmarks.dispatch_cells import DEFAULT, HERE, Cell, apps_of, full_seconds, model_of
from delen.profile.profile import HostCosts
from delen.simulate.apps import draw
from delen.simulate.model import SimulatedModel
from delen.simulate.run import RunSettings, run
from delen.simulate.summary import summarise
from delen.simulate.trace import read_trace
from policies.plugins import DISPATCH_POLICIES, find_plugin

LOADS = (0.3, 0.9, 1.5)
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


def play(file: Path, model: SimulatedModel) -> float:
    """Microseconds a request of the trace in ``file``."""
    policy = find_plugin(DISPATCH_POLICIES, DEFAULT)()
    gc.collect()
    began = time.process_time()
    trace = read_trace(file)
    gc.freeze()  # as the command does
    outcomes = run(trace, {model.name: model}, policy, policy, RunSettings())
    summarise(outcomes, None)
    taken = time.process_time() - began
    gc.unfreeze()
    return 1e6 * taken / len(trace)


def main() -> list[Figure]:
    device = model_of(HERE)
    served = replace(device, profile=replace(device.profile, host=HOST))
    taken: dict[float, list[float]] = {load: [] for load in LOADS}
    with TemporaryDirectory() as folder:
        for seed in range(ROUNDS):
            for load in LOADS:
                file = Path(folder) / f"{seed}-{load}.csv"
                write_trace(file, load, device, seed)
                taken[load].append(play(file, served))
    return report(
        "A simulated request",
        [Figure(f"at load {load}", tuple(taken[load]), "us", LIMIT) for load in LOADS],
    )


if __name__ == "__main__":
    main()
