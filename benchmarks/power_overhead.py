"""What energy costs those who do not ask for it: the polling, and every request's share."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common import Figure, report
from delen.bundle.manifest import Bundle, load_bundle
from delen.core.bounds import Bounds
from delen.core.energy_status import Battery, Budget
from delen.core.plan import Plan
from delen.core.result import (
    AccuracyOutcome,
    EnergyOutcome,
    LatencyOutcome,
    Prediction,
    Receipt,
    Result,
)
from delen.core.work import Share, Work
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.energy.accounts import Accounts
from delen.energy.admission import ControllerAdmission
from delen.energy.mode_monitor import ModeMonitor
from delen.energy.windows import WindowAccounting
from delen.engine.energy_admission import EnergyAdmission
from delen.profile.cost_model import CostModel
from delen.profile.energy_account import Spent
from delen.profile.profile import Device, Profile, Quantiles, SegmentCost
from policies.energy.api import ControllerSettings
from policies.energy.constraint import PowerView
from policies.energy.price_controller import PriceController
from policies.plan.planner import Planner, PlannerSettings
from power.sources.probe import open_source
from power.sources.sampler import Sampler
from power.sources.series import Samples
from tests.board import Board
from tests.nvpmodel import ModeTree
from tests.sensors import make_tree

_ROUNDS = 7
_POLLING_SECONDS = 4.0
_REQUESTS = 2000
_TURN = 50
_LOOKS = 60
_ZONES = 9
_PERIOD = 0.01
"""Seconds from one request to the next."""
_TENANT = "camera"
_FAMILIES = ("orin-nx", "agx-orin")


def main() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        polling = [_polling(Path(folder) / family, family) for family in _FAMILIES]
        looking = _looking(Path(folder) / "board")
        path, accounting = _serving(_open(Path(folder) / "serving", "orin-nx"))
    return report("What energy accounting costs", [*polling, looking, path, accounting])


def _polling(root: Path, family: str) -> Figure:
    """Processor time of the sampler at the daemon's interval, over files laid out as a board's."""
    shares = []
    for number in range(3):
        sampler = _open(root / str(number), family)
        began, processor = time.perf_counter(), time.process_time()
        sampler.start()
        time.sleep(_POLLING_SECONDS)
        sampler.close()
        shares.append(100 * (time.process_time() - processor) / (time.perf_counter() - began))
    return Figure(f"polling {family} every 50 ms, of a core", tuple(shares), "%", 1.0)


def _looking(root: Path) -> Figure:
    """Processor time of the look at mode, throttling, load, clocks, fan and nine thermal zones,
    which the daemon takes once a second."""
    tree, board = ModeTree(root), Board(root)
    for number in range(_ZONES):
        board.zone(number, f"zone{number}-thermal", 45.0)
    monitor = ModeMonitor(tree.root)
    shares = []
    for _ in range(_ROUNDS):
        processor = time.process_time()
        for _ in range(_LOOKS):
            monitor.look()
        shares.append(100 * (time.process_time() - processor) / _LOOKS)
    return Figure("looking at the board once a second, of a core", tuple(shares), "%", 1.0)


def _open(root: Path, family: str) -> Sampler:
    make_tree(root, family)
    source = open_source("ina3221", root, watts_per_core=4.0).source
    assert source is not None
    return Sampler(source)


@dataclass(frozen=True)
class _Served:
    """What one request is on its way, with its planner and the results that are made of it."""

    planner: Planner
    costs: CostModel
    results: tuple[Result, ...]

    def plan(self, count: int) -> float:
        """Processor seconds of a request's plan alone."""
        began = time.thread_time()
        for _ in range(count):
            _plan(self.planner, self.costs, 0.0)
        return (time.thread_time() - began) / count

    def serve(self, admission: EnergyAdmission, numbers: range) -> float:
        """Processor seconds of a request's plan and all that the engine does for its energy."""
        costs, energy = self.costs, self.costs.energy
        began = time.thread_time()
        for number in numbers:
            plan_at = partial(_plan, self.planner, costs)
            _, reserved = admission.admit(_TENANT, plan_at(admission.price(_TENANT)), plan_at)
            result = self.results[number]
            share, joules = Share(result.request_id, _TENANT), 0.0
            for segment in range(costs.segments):
                predicted = energy.predict(costs.cost(segment, 1), Spent(0.002, 0.001))
                joules += (predicted or 0.0) * energy.factor(segment)
                start = number * _PERIOD + segment * 0.002
                admission.ran(Work("bench", segment, 1, start, start + 0.002, predicted, (share,)))
            admission.ended(share, reserved, joules, result)
        return (time.thread_time() - began) / len(numbers)

    def added(self, admission: EnergyAdmission) -> float:
        """Processor seconds that energy adds to a request: the median over turns of some
        requests with it and as many without."""
        turns = [range(first, first + _TURN) for first in range(0, _REQUESTS, _TURN)]
        return float(np.median([self.serve(admission, turn) - self.plan(_TURN) for turn in turns]))


def _plan(planner: Planner, costs: CostModel, price: float) -> Plan:
    return planner.plan(Bounds(), costs, 0.0, True, price)


def _serving(sampler: Sampler) -> tuple[Figure, Figure]:
    """With a watt cap, a battery and a budget all in force, against the plan alone."""
    bundle = load_bundle(SHIPPED_BUNDLES / "cifar10-resnet")
    accounts = Accounts("ina3221", 4.0)
    planner = Planner(bundle.calibration, PlannerSettings())
    profile = _profile(bundle)
    served = _Served(planner, CostModel(profile, accounts.open(profile), 0.99), _results(bundle))
    added, kept = [], []
    seconds = _REQUESTS * _PERIOD
    times = np.arange(-0.05, seconds + 0.1, 0.05)
    samples = Samples(times, np.full(len(times), 8.0))
    for _ in range(_ROUNDS):
        admission = ControllerAdmission(_controller())
        accounting = WindowAccounting(sampler, accounts, 1.0, 10_000)
        accounting.add_model(profile)
        added.append(1e6 * served.added(admission))
        began = time.thread_time()
        accounting.enter(admission.drain())
        list(accounting.ledger.settle(accounting.attributor.close(0.0, seconds, samples)))
        kept.append(1e6 * (time.thread_time() - began) / _REQUESTS)
    return (
        Figure("a request's path, five segments, for energy", tuple(added), "us", 20.0),
        Figure("accounting, on a thread of its own, a request", tuple(kept), "us"),
    )


def _controller() -> PriceController:
    """Limits that are met, so that every request is looked at by all of them and none refused."""
    now = time.monotonic()
    controller = PriceController(ControllerSettings())
    controller.set_watt_cap(1e6)
    controller.set_battery(Battery(1e10, 1e6, 3600.0), now)
    controller.set_budget(_TENANT, Budget(1e8, 3600.0), now)
    controller.tick(PowerView(now, 8.0, 6.0, 0.0, 0.0, 30.0, 0.0066))
    return controller


def _profile(bundle: Bundle) -> Profile:
    """Some 2 ms a segment on one core, as on a small processor."""
    cost = SegmentCost(Quantiles(0.002, 0.0022, 0.0023, 0.0025), 0.002)
    batches = {1: cost, bundle.manifest.max_batch: cost}
    return Profile(
        model="bench",
        bundle=bundle.digest,
        device=Device("bench", 1, "onnxruntime", "cpu", 1, "default"),
        created="2026-01-01T00:00:00+00:00",
        quick=False,
        answer=Quantiles(0.0001, 0.0001, 0.0001, 0.0001),
        segments=tuple(batches for _ in bundle.exits),
    )


def _results(bundle: Bundle) -> tuple[Result, ...]:
    result = Result(
        model="bench",
        version="1",
        request_id="b-0",
        predictions=(Prediction(0, None, 1.0),),
        probabilities=np.zeros(10, np.float32),
        exit=len(bundle.exits) - 1,
        exits=len(bundle.exits),
        reason="final",
        receipt=Receipt(
            LatencyOutcome(None, 0.01, 0.0, 0.01, None),
            AccuracyOutcome(None, None, None, None, None),
            EnergyOutcome(None, 0.04, 0.04, "estimated", "model", "processor", None),
        ),
        tenant=_TENANT,
        stream=None,
    )
    return tuple(replace(result, request_id=f"b-{number:x}") for number in range(_REQUESTS))
