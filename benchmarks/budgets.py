"""Does a tenant's budget hold in true joules, also while nothing may be called attributed?

The daemon's own admission, controller, accounting and attribution, in simulated time, serve two
tenants on plants that import nothing of them (``benchmarks/plants``): one with a budget, one
without. Predictions are wrong by a factor that nobody knows at the start, and by another one for
each segment; readings come late or once a second; another program draws 3 W at times. What counts
are the true joules of the tenant with the budget in its worst stretch of one period, over it.
"""

from __future__ import annotations

import heapq
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import repeat
from typing import Literal

import numpy as np

from benchmarks.common import Figure, report
from benchmarks.plants.device import Block, Energy
from benchmarks.plants.scenes import IDLE, MEDIUM
from benchmarks.plants.sensor import JITTER, POLL, Sensor
from delen.bundle.calibration import Calibration
from delen.bundle.manifest import load_bundle
from delen.core.bounds import Bounds
from delen.core.energy_status import Budget
from delen.core.plan import Plan
from delen.core.result import (
    AccuracyOutcome,
    EnergyOutcome,
    LatencyOutcome,
    Receipt,
    Result,
)
from delen.core.work import Share, Work
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.energy.accounts import Accounts
from delen.energy.admission import ControllerAdmission
from delen.energy.power_view import PowerViewBuilder
from delen.energy.windows import WindowAccounting
from delen.errors import BudgetExhausted, Overloaded
from delen.profile.cost_model import CostModel
from delen.profile.energy_account import Spent
from delen.profile.profile import Device, Metering, Profile, Quantiles, SegmentCost
from policies.energy.api import ControllerSettings
from policies.energy.price_controller import PriceController
from policies.plan.planner import Planner, PlannerSettings
from power.sources.sampler import Sampler
from power.sources.source import PowerReading

SEEDS = 5
SECONDS, TICK = 120.0, 0.1
BUDGET = Budget(3.0, 20.0)
LIMITED, FREE = "camera", "phone"
RATES = {LIMITED: 6.0, FREE: 12.0}
WATTS_PER_CORE = 4.0
MODEL = "net"
RECENT = 3.0
"""Seconds of what ran that a reading may still look at."""


@dataclass(frozen=True)
class Cell:
    """``ratio`` is what true joules are of predicted ones; a ``profile`` was measured, and is off
    by 3 % for each segment. ``others``: another program's steps of 3 W. Where the tenant is
    ``alone`` nobody else serves to learn from."""

    name: str
    sensor: Sensor = Sensor()  # noqa: RUF009
    ratio: float = 1.0
    profile: bool = False
    others: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Outcome:
    """Of the tenant with the budget: its true joules in the worst and the mean period over the
    budget, and the shares of its requests that were attributed, and refused."""

    worst: float
    mean: float
    attributed: float
    refused: float


class Plant:
    """A device whose sensor shows, when it is read, what ran until then."""

    name, scope, interval = "plant", "module_input", 0.001
    kind: Literal["measured", "estimated"] = "measured"

    def __init__(self, sensor: Sensor, others: Sequence[Block], seed: int) -> None:
        self.now = 0.0
        self.blocks: list[tuple[str, Block]] = []
        self._exact = Sensor(sensor.window, sensor.delay, quantum=1e-9, noise=0.0)
        self._sensor = sensor
        self._others = list(others)
        self._recent: deque[Block] = deque()
        self._seed = seed
        self._noise = np.random.default_rng([seed, 17])
        self._held = (np.nan, 0.0)

    def ran(self, tenant: str, block: Block) -> None:
        self.blocks.append((tenant, block))
        self._recent.append(block)

    def read(self) -> PowerReading:
        while self._recent and self._recent[0][1] < self.now - RECENT:
            self._recent.popleft()
        energy = Energy([*self._recent, *self._others] or [(0.0, 1.0, 0.0)])
        [exact] = self._exact.read(
            lambda moments: energy.upto(moments) + IDLE * moments,
            np.array([self.now]),
            np.random.default_rng(self._seed),
        )
        if exact != self._held[0]:  # another average, with noise of its own
            noisy = exact + self._noise.normal(0, self._sensor.noise)
            quantum = self._sensor.quantum
            self._held = (exact, float(np.round(noisy / quantum) * quantum))
        return PowerReading(self.now, {}, self._held[1])

    def close(self) -> None:
        """Nothing is held."""

    def worst(self, tenant: str, seconds: float) -> tuple[float, float]:
        """True joules of ``tenant`` in its worst stretch of so many ``seconds``, and in the mean
        of all of them."""
        energy = Energy([block for whose, block in self.blocks if whose == tenant])
        moments = np.arange(0.0, SECONDS - seconds, 0.05)
        spent = energy.upto(moments + seconds) - energy.upto(moments)
        return float(spent.max()), float(spent.mean())


@lru_cache(maxsize=1)
def _table() -> Calibration:
    return load_bundle(SHIPPED_BUNDLES / "cifar10-resnet").calibration


def _profile(cell: Cell, rng: np.random.Generator) -> Profile:
    joules = np.asarray(MEDIUM.joules)
    if cell.profile:
        predicted = joules / (1 + 0.03 * rng.normal(size=len(joules)))
    else:
        predicted = joules / cell.ratio / (1 + 0.3 * rng.choice([-1.0, 1.0], len(joules)))
    segments = tuple(
        {
            1: SegmentCost(
                Quantiles(*(4 * [seconds])),
                each / WATTS_PER_CORE,
                each if cell.profile else None,
            )
        }
        for seconds, each in zip(MEDIUM.seconds, predicted.tolist(), strict=True)
    )
    device = Device("plant", 1, "none", "cpu", 1, "default")
    metering = Metering("plant", "module_input", IDLE, 5, 10.0) if cell.profile else None
    nothing = Quantiles(*(4 * [0.0]))
    return Profile(MODEL, "", device, "", False, nothing, segments, metering)


class Loop:
    """Serves arrivals one after another for ``SECONDS``; deciding takes no simulated time."""

    def __init__(self, cell: Cell, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 13])
        edges = np.cumsum(self._rng.exponential(6.0, 60))
        steps = list(zip(edges[::2], edges[1::2], strict=True)) if cell.others else []
        self.plant = Plant(cell.sensor, [(a, b, 3.0 * (b - a)) for a, b in steps], seed)
        self.refused: list[str] = []
        profile = _profile(cell, self._rng)
        self._sampler = Sampler(self.plant, POLL, clock=self._clock)
        accounts = Accounts("plant", WATTS_PER_CORE)
        self._accounting = WindowAccounting(
            self._sampler, accounts, 1.0, 100_000, clock=self._clock
        )
        self._accounting.add_model(profile)
        self._controller = PriceController(ControllerSettings(0.0))
        self._admission = ControllerAdmission(self._controller, clock=self._clock)
        self._admission.doubt = self._accounting.doubt
        self._admission.set_budget(LIMITED, BUDGET)
        self._costs = CostModel(profile, accounts.open(profile), 0.99)
        self._planner = Planner(_table(), PlannerSettings())
        self._view = PowerViewBuilder(self._sampler, 0.0)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._free = 0.0
        for tenant, rate in RATES.items():
            if tenant == LIMITED or not cell.alone:
                times = self._rng.uniform(2.0, SECONDS - 1, self._rng.poisson(rate * SECONDS))
                for time in times.tolist():
                    self._at(time, partial(self._arrive, tenant))
        self._at(0.0, self._poll)
        for tick in range(1, int(SECONDS / TICK)):
            self._at(tick * TICK, self._tick)

    def run(self) -> Outcome:
        while self._events:
            self.plant.now, _, action = heapq.heappop(self._events)
            action()
        worst, mean = self.plant.worst(LIMITED, BUDGET.period)
        ledger, requests = self._accounting.ledger, 0
        attributed = 0
        for number in range(self._count):
            settled = ledger.receipt(f"r{number}")
            if settled is not None and settled.tenant == LIMITED:
                requests += 1
                attributed += settled.receipt.energy.kind == "attributed"
        refused = self.refused.count(LIMITED)
        return Outcome(
            worst / BUDGET.joules,
            mean / BUDGET.joules,
            attributed / max(requests, 1),
            refused / max(requests + refused, 1),
        )

    def _clock(self) -> float:
        return self.plant.now

    def _at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, self._count, action))
        self._count += 1

    def _poll(self) -> None:
        self._sampler._poll(self.plant.now)
        after = self.plant.now + POLL * self._rng.uniform(1 - JITTER, 1 + JITTER)
        if after < SECONDS:
            self._at(after, self._poll)

    def _tick(self) -> None:
        price = self._admission.price()
        self._admission.settle(self._accounting.enter(self._admission.drain()))
        self._admission.settle(self._accounting.close_due(price, "ok"))
        self._admission.tick(self._view.view(self.plant.now, self._accounting.attributor, None))

    def _arrive(self, tenant: str) -> None:
        def plan(price: float) -> Plan:
            return self._planner.plan(Bounds(), self._costs, 0.0, price=price)

        try:
            admitted = self._admission.admit(tenant, plan(self._admission.price(tenant)), plan)
        except (BudgetExhausted, Overloaded):
            self.refused.append(tenant)
            return
        share = Share(f"r{self._count}", tenant)
        exit, sample = admitted.plan.exit, int(self._rng.integers(_table().samples))
        if admitted.plan.threshold is not None:
            sure = _table().confidence[sample, :exit] >= admitted.plan.threshold
            exit = int(sure.argmax()) if sure.any() else exit
        began, estimated = max(self.plant.now, self._free), [0.0]
        for segment in range(exit + 1):
            slower, dearer = np.exp(self._rng.normal(0, 0.15)), 1 + 0.02 * self._rng.normal()
            ended = began + MEDIUM.seconds[segment] * float(slower)
            block = (began, ended, MEDIUM.joules[segment] * float(dearer))
            self._at(began, partial(self.plant.ran, tenant, block))
            self._at(ended, partial(self._ran, share, segment, began, ended, estimated))
            began = ended
        self._free = began
        self._at(began, partial(self._answer, share, exit, admitted.reserved, estimated))

    def _ran(
        self, share: Share, segment: int, began: float, ended: float, estimated: list[float]
    ) -> None:
        cost, account = self._costs.cost(segment, 1), self._costs.energy
        joules = account.predict(cost, Spent(ended - began, cost.processor))
        assert joules is not None
        estimated[0] += joules * account.factor(segment)
        self._admission.ran(Work(MODEL, segment, 1, began, ended, joules, (share,)))

    def _answer(self, share: Share, exit: int, reserved: float, estimated: list[float]) -> None:
        used = estimated[0]
        energy = EnergyOutcome(None, used, used, "estimated", "model", "processor", None)
        receipt = Receipt(
            LatencyOutcome(None, 0.0, 0.0, 0.0, None),
            AccuracyOutcome(None, None, None, None, None),
            energy,
        )
        result = Result(
            MODEL, "1", share.request_id, (), None, exit, 5, "final", receipt, share.tenant, None
        )
        self._admission.ended(share, reserved, used, result)


def run(cell: Cell, seed: int) -> Outcome:
    return Loop(cell, seed).run()


def _cells() -> list[Cell]:
    sensors = {
        "fast": Sensor(),
        "12 ms late": Sensor(delay=0.012),
        "60 ms late": Sensor(delay=0.06),
        "held 1 s": Sensor(window=1.0),
    }
    cells = [
        Cell(f"{name}, true/predicted {ratio:g}", sensor, ratio)
        for name, sensor in sensors.items()
        for ratio in (0.7, 1.0, 1.3, 3.0)
    ]
    cells += [
        Cell(f"others' steps of 3 W, {name}, {ratio:g}", sensors[name], ratio, others=True)
        for name in ("fast", "held 1 s")
        for ratio in (1.0, 3.0)
    ]
    cells += [
        Cell(f"alone, {name}, 3", sensor, 3.0, alone=True) for name, sensor in sensors.items()
    ]
    cells += [
        Cell(f"measured profile, {name}", sensor, profile=True) for name, sensor in sensors.items()
    ]
    return cells


CELLS = _cells()
HEAD = f"{'':<38} {'worst':>7} {'mean':>7} {'attr.':>7} {'refused':>7}"


def line(cell: Cell, outcomes: Sequence[Outcome]) -> str:
    """In percent: the worst period of all seeds, and the medians of its mean use and shares."""
    columns = (
        max(each.worst for each in outcomes),
        np.median([each.mean for each in outcomes]),
        np.median([each.attributed for each in outcomes]),
        np.median([each.refused for each in outcomes]),
    )
    return f"{cell.name:<38} " + " ".join(f"{100 * value:7.1f}" for value in columns)


def main() -> list[Figure]:
    print(f"\n{HEAD}")
    worst = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for cell in CELLS:
            outcomes = list(pool.map(run, repeat(cell, SEEDS), range(SEEDS)))
            print(line(cell, outcomes), flush=True)
            worst.append(100 * max(each.worst for each in outcomes))
    return report(
        "Budgets in true joules",
        [
            Figure("worst period of a budget, cells", tuple(worst), "%", 105.0),
            Figure("worst period of a budget, worst cell", (max(worst),), "%", 105.0),
        ],
    )


if __name__ == "__main__":
    main()
