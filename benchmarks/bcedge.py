"""BCEdge's learnt policy against every fixed batch size and number of concurrent batches.

The devices are published figures of a Jetson TX2 and a Jetson Nano with assumed costs of batches
and of lanes, since nobody published them: *batches pay* as Jellyfish has it (a batch of b takes
0.75 + 0.25 b times as long), *lanes pay* where four do 2.5 times the work of one, and *nothing
pays*. None of them was trained on. Each load is a share of what the device does at its best; all
requests are due in 15 times the whole network's time. The grid's optimum is the fixed setting with
the best mean utility over the seeds at that load, chosen with hindsight; the mean of fixed settings
is that of the whole grid. The utility is the published one, ``log(throughput / (latency / SLO))``,
with requests in time a second as throughput; "ratio" is the mean of it without the logarithm.

``python -m benchmarks.bcedge DIR`` writes profiles to train on; the shipped weights are of
``delen train-policy --profile DIR/*.json --output policies/dispatch/published/bcedge_weights.py``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from math import exp
from pathlib import Path
from statistics import mean, median

import numpy as np

from benchmarks.common import Figure, report
from benchmarks.profile_files import NANO, TX2_RESNET18, TX2_RESNET50
from delen.core.bounds import Bounds
from delen.core.dispatch import DispatchPolicy, ModelView
from delen.daemon.settings import DEFAULT_DISPATCH
from delen.profile.profile import LEVELS, Profile, Quantiles, SegmentCost
from delen.profile.reader import load_profile
from delen.profile.store import save_profile
from delen.scheduler.policy_guard import InRank
from delen.simulate.arrivals import Poisson
from delen.simulate.device import DeviceSettings
from delen.simulate.learning.bcedge import highest_rate, utility, whole_seconds
from delen.simulate.load import of_profile
from delen.simulate.model import SimulatedModel
from delen.simulate.run import RunSettings, run
from delen.simulate.trace import Arrival, Trace
from policies.dispatch.published.bcedge import FEATURES, SETTINGS, BCEdge, Setting
from policies.learnt import Floats
from policies.plan.planner import PlannerSettings
from policies.plugins import EXIT_POLICIES, find_plugin, make_dispatch

LOADS = (0.2, 0.5, 0.9)
SEEDS = range(100, 105)
REQUESTS = 400
WITHIN = 15.0
BATCHES = (1, 2, 4, 8, 16, 32)
PUBLISHED_GAIN = 37.6

_BATCH_COSTS = (0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.5, 2.5)
_LANE_COSTS = (0.1, 0.3, 0.5, 0.75, 1.3)
_LEVEL = 0.99


class _Fixed(BCEdge):
    """Runs one setting all the time."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.first = setting

    def pick(self, now: float, state: Floats, view: ModelView) -> Setting:
        return self.first


def profile(file: Path, batch: float, lane: float, batches: Sequence[int], lanes: int) -> Profile:
    """The published network of ``file``, where each further sample of a batch takes ``batch`` times
    as long as the first, and each further lane slows by ``lane``."""
    published = load_profile(file)

    def cost(segment: SegmentCost, size: int) -> SegmentCost:
        times = 1 + batch * (size - 1)
        return SegmentCost(Quantiles(*(times * segment.latency.at(q) for q in LEVELS)), 0.0)

    return replace(
        published,
        energy=None,
        interference=tuple(1 + lane * others for others in range(lanes)),
        segments=tuple(
            {size: cost(costs[1], size) for size in batches} for costs in published.segments
        ),
    )


DEVICES = {
    "batches pay": profile(TX2_RESNET18, 0.25, 0.6, BATCHES, 4),
    "lanes pay": profile(TX2_RESNET50, 0.95, 0.2, BATCHES[:4], 4),
    "nothing pays": profile(NANO, 1.0, 0.9, BATCHES[:4], 2),
}


def write_profiles(folder: Path) -> None:
    """Profiles to train on: batches and lanes that cost next to nothing, to such that lose."""
    folder.mkdir(parents=True, exist_ok=True)
    files = (TX2_RESNET18, NANO, TX2_RESNET50)
    costs = [(batch, lane) for batch in _BATCH_COSTS for lane in _LANE_COSTS]
    for number, (batch, lane) in enumerate(costs):
        batches = BATCHES if number % 4 < 2 else BATCHES[:4]
        made = profile(files[number % 3], batch, lane, batches, lanes=4)
        save_profile(made, folder / f"{number:02}-batch{batch}-lane{lane}.json")


def simulated(profile: Profile) -> SimulatedModel:
    policy = find_plugin(EXIT_POLICIES, "bounds")(len(profile.segments))
    return of_profile(profile, PlannerSettings(), policy, _LEVEL, seed=0)


def trace_of(rate: float, within: float, seed: int) -> Trace:
    times = Poisson(rate).times(REQUESTS / rate, np.random.default_rng(seed))
    bounds = Bounds(max_latency=within)
    return Trace(tuple(Arrival(float(at), bounds=bounds) for at in times))


class _Played:
    """Utilities and violations of one policy at one load, by seed."""

    def __init__(
        self, name: str, model: SimulatedModel, device: DeviceSettings, load: float
    ) -> None:
        self.utilities, self.violations = [], []
        self.failures: tuple[str, ...] = ()
        within = WITHIN * whole_seconds(model)
        for seed in SEEDS:
            trace = trace_of(load * highest_rate(model, device), within, seed)
            policy, default = _policies(name)
            outcomes = run(
                trace, {model.name: model}, policy, default, RunSettings(device, seed=seed)
            )
            in_time = outcomes.answered & ~outcomes.missed_latency
            self.utilities.append(utility(outcomes, within))
            self.violations.append(100 * float(1 - in_time.mean()))
            self.failures += outcomes.failures

    @property
    def utility(self) -> float:
        return mean(self.utilities)

    @property
    def ratio(self) -> float:
        return mean(map(exp, self.utilities))


def _policies(name: str) -> tuple[DispatchPolicy, DispatchPolicy]:
    """A new one by ``name``, and what decides where it fails; fixed settings do not."""
    batch, x, lanes = name.partition("x")
    if x:
        return _Fixed(Setting(int(batch), int(lanes))), InRank()
    return make_dispatch(name), make_dispatch(DEFAULT_DISPATCH)


def main() -> list[Figure]:
    figures = []
    for name, known in DEVICES.items():
        figures += _play(name, simulated(known))
    figures.append(Figure("the network's setting for a state", _inference(), "µs", 30.0))
    return report("BCEdge against fixed settings", figures)


def _play(name: str, model: SimulatedModel) -> list[Figure]:
    factors = model.profile.interference or (1.0,)
    device = DeviceSettings(len(factors), factors)
    grid = [
        f"{each.batch}x{each.lanes}"
        for each in SETTINGS
        if each.batch <= model.max_batch and each.lanes <= len(factors)
    ]
    shares, gains, ratios, violations = [], [], [], []
    print(f"\n{name}: {len(grid)} fixed settings (batch x lanes)")
    print("load  bcedge  optimum         mean   default  violations")
    for load in LOADS:
        fixed = {each: _Played(each, model, device, load) for each in grid}
        best = max(fixed, key=lambda each: fixed[each].utility)
        learnt = _Played("bcedge", model, device, load)
        default = _Played(DEFAULT_DISPATCH, model, device, load)
        if learnt.failures:
            print(f"  the default decided for a while: {learnt.failures[0]}")
        usual = mean(each.utility for each in fixed.values())
        shares.append(learnt.utility / fixed[best].utility)
        gains.append(100 * (learnt.utility / usual - 1))
        ratios.append(100 * (learnt.ratio / mean(each.ratio for each in fixed.values()) - 1))
        violations += learnt.violations
        print(
            f"{load:.1f}   {learnt.utility:6.3f}  {fixed[best].utility:6.3f} ({best:>4})  "
            f"{usual:6.3f}  {default.utility:6.3f}  {mean(learnt.violations):5.2f} %",
            flush=True,
        )
    return [
        Figure(f"{name}: least share of the grid's optimum", (min(shares),), "", 0.97, False),
        Figure(f"{name}: gain over the mean of fixed settings", tuple(gains), "%"),
        Figure(f"{name}: the same without the logarithm", tuple(ratios), "%"),
        Figure(f"{name}: violations, worst seed", (max(violations),), "%", 5.0),
    ]


def _inference() -> tuple[float, ...]:
    """Microseconds of the network, with the check of its ranges."""
    learnt, rounds = BCEdge().learnt, []
    state = (learnt.low + learnt.high) / 2
    for _ in range(5):
        took = []
        for _ in range(400):
            began = time.perf_counter()
            learnt.values(state, FEATURES).argmax()
            took.append(1e6 * (time.perf_counter() - began))
        rounds.append(median(took))
    return tuple(rounds)


if __name__ == "__main__":
    write_profiles(Path(sys.argv[1]))
