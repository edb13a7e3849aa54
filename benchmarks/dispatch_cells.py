"""One cell of ``benchmarks.dispatch``: a device, a kind of arrivals, tenants and a load; its
requests played under every dispatch policy, beside what a clairvoyant could do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.dispatch_kinds import INVERTED, apps_of_kind
from benchmarks.profile_files import NANO, TX2_RESNET50, batch_friendly, long_tailed
from benchmarks.standard_apps import make_trace
from delen.bundle.manifest import load_bundle
from delen.core.bounds import HIGHEST_PRIORITY
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.daemon.settings import DEFAULT_DISPATCH
from delen.errors import ConfigError
from delen.profile.profile import Profile
from delen.profile.reader import load_profile
from delen.scheduler.plan_cache import Plans
from delen.sdk.address import default_state
from delen.simulate.apps import App
from delen.simulate.bounds.upper_bound import label_blind_bound, upper_bound
from delen.simulate.device import DeviceSettings
from delen.simulate.draws import draw_samples
from delen.simulate.load import of_bundle, of_profile, profile_of
from delen.simulate.model import SimulatedModel
from delen.simulate.run import RunSettings, run
from delen.simulate.summary import summarise
from delen.simulate.trace import Trace
from policies.plan.planner import PlannerSettings
from policies.plugins import DISPATCH_POLICIES, EXIT_POLICIES, find_plugin

DEFAULT = DEFAULT_DISPATCH
BUNDLE = "cifar10-resnet"
HERE, NANO_NAME, TX2_NAME = "this machine", "nano", "tx2"
BATCHES, TAIL = "batches pay", "long tail"
GRID_DEVICES = (HERE, NANO_NAME, TX2_NAME)
HARD_DEVICES = (BATCHES, TAIL)
"""Made of the Nano."""

WATTS_PER_CORE = 4.0
"""Energies of this machine, which has no sensor, are processor time by so many watts."""

_LEVEL = 0.99
_IDLE = 100.0
"""Times of the whole network between two requests that shall not meet."""


class Cell(NamedTuple):
    """``load`` is the rate of requests over what the device runs a second, to the deepest exit and
    one at a time."""

    device: str
    kind: str
    tenants: int
    load: float


@dataclass(frozen=True, slots=True)
class Size:
    """A trace lasts ``seconds`` at least, and until ``requests`` are expected."""

    requests: int
    seconds: float


@lru_cache
def model_of(device: str, sizes: bool = False) -> SimulatedModel:
    """The network of ``device``, one of DEVICES, with its profile; that of this machine is measured
    (quickly) where there is none yet. With ``sizes`` it has all its input sizes, not only the
    largest."""
    make_policy = find_plugin(EXIT_POLICIES, "bounds")
    if device != HERE:
        profile = _published(device)
        policy = make_policy(len(profile.segments))
        return of_profile(profile, PlannerSettings(), policy, _LEVEL, seed=0)
    bundle = load_bundle(SHIPPED_BUNDLES / BUNDLE)
    try:
        profile = profile_of(bundle, Path(default_state()))
    except ConfigError:
        command = f"-m delen.commands.main profile --quick --model {BUNDLE}"
        subprocess.run([sys.executable, *command.split()], check=True, stdout=subprocess.DEVNULL)
        profile = profile_of(bundle, Path(default_state()))
    # as of the other devices: segments, and nothing else
    smaller = tuple(replace(each, host=None) for each in profile.smaller)
    profile = replace(profile, host=None, smaller=smaller)
    if not sizes:
        bundle = replace(bundle, size=None, smaller=())
    policy = make_policy(len(bundle.exits))
    return of_bundle(bundle, profile, PlannerSettings(), policy, _LEVEL, WATTS_PER_CORE)


def _published(device: str) -> Profile:
    if device == TX2_NAME:
        return load_profile(TX2_RESNET50)
    nano = load_profile(NANO)
    make = {BATCHES: batch_friendly, TAIL: long_tailed}.get(device)
    return nano if make is None else make(nano)


def apps_of(cell: Cell, model: SimulatedModel, duration: float) -> tuple[App, ...]:
    """The tenants of ``cell``, for ``duration`` seconds."""
    rate = cell.load / full_seconds(model)
    return apps_of_kind(cell.kind, cell.tenants, rate, model, duration)


def trace_of(cell: Cell, model: SimulatedModel, size: Size, seed: int) -> Trace:
    """The requests of ``cell``, the same for every policy."""
    duration = max(size.seconds, size.requests * full_seconds(model) / cell.load)
    return make_trace(apps_of(cell, model, duration), duration, seed)


def spread_out(trace: Trace, gap: float) -> Trace:
    """The same requests ``gap`` seconds apart."""
    return Trace(
        tuple(replace(arrival, time=gap * row) for row, arrival in enumerate(trace.arrivals))
    )


def play(cell: Cell, seed: int, size: Size, policies: Sequence[str]) -> dict[str, Any]:
    """What comes of the requests of ``cell`` under each policy: a line of the results.

    ``bound`` is the upper bound, ``label_blind`` the estimate of what can be reached without
    knowing which exits are right. Two more figures divide the default's distance from it: ``deep``
    is the accuracy of the deepest exit that each request's caps allow on an idle device, ``alone``
    the effective accuracy of the default when no two of the requests meet.
    """
    model = model_of(cell.device)
    models = {model.name: model}
    trace = trace_of(cell, model, size, seed)
    urgent = trace.tenants if cell.kind == INVERTED else ()
    settings = RunSettings(seed=seed, priorities=dict.fromkeys(urgent, HIGHEST_PRIORITY))
    idle = spread_out(trace, _IDLE * full_seconds(model))
    return {
        **cell._asdict(),
        "seed": seed,
        "requests": len(trace),
        "bound": upper_bound(trace, models, DeviceSettings(), seed),
        "label_blind": label_blind_bound(trace, models, DeviceSettings(), seed),
        "deep": deepest_accuracy(trace, model, seed),
        "alone": _play(DEFAULT, idle, models, settings)["effective"],
        "policies": {name: _play(name, trace, models, settings) for name in policies},
    }


def deepest_accuracy(trace: Trace, model: SimulatedModel, seed: int) -> float:
    """Of ``trace`` if nobody waits, floors are not looked at, and no time or energy is saved."""
    plans = Plans(model.planner, model.costs())
    right = []
    for arrival, sample in zip(
        trace, draw_samples(trace, {model.name: model}, model.name, seed), strict=True
    ):
        plan = plans.plan(replace(arrival.bounds, min_accuracy=None))
        exit = plan.exit if plan.limited_by != "depth" else model.planner.useful.deepest
        right.append(plan.infeasible is None and bool(model.calibration.correct[sample, exit]))
    return sum(right) / len(right)


def _play(
    name: str, trace: Trace, models: dict[str, SimulatedModel], settings: RunSettings
) -> dict[str, Any]:
    policy, fallback = (find_plugin(DISPATCH_POLICIES, each)() for each in (name, DEFAULT))
    outcomes = run(trace, models, policy, fallback, settings)
    if any("OutsideTraining" not in failure for failure in outcomes.failures):
        raise RuntimeError(f"{name} failed {outcomes.policy_failures} times: {outcomes.failures}")
    summary = summarise(outcomes, None)
    return {
        "effective": summary["effective_accuracy"],
        "accuracy": summary["accuracy"],
        "violations": summary["violations"],
        "refused": summary["refused_why"],
        "missed": summary["missed"],
        "p95_ms": summary["latency_ms"]["p95"],
        "energy_j": summary["energy_j"],
    }


def full_seconds(model: SimulatedModel) -> float:
    """Seconds of the whole network on one sample."""
    costs = model.costs()
    return costs.typical(0, costs.segments - 1, 1)
