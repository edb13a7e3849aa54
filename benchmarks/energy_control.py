"""Do budgets, caps and batteries hold in a closed loop, and at what accuracy?

The device is a network like the shipped one at the scale of a Jetson, in simulated time
(benchmarks/closed_loop.py): its segments truly take up to 6 % more or less than their profile
says, and its sensor averages over 6.6 ms or 0.42 s.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from benchmarks.closed_loop import Log, Loop, Machine
from benchmarks.common import Figure
from benchmarks.plant import Floats, Power, Sensor
from delen.bundle.manifest import Bundle, load_bundle
from delen.core.energy_status import Battery, Budget
from delen.daemon.build_model import SHIPPED_BUNDLES
from policies.energy.api import ControllerSettings
from policies.energy.constraint import PowerView
from policies.energy.price_controller import PriceController
from policies.plan.planner import Planner, PlannerSettings

SEEDS = (0, 1, 2, 3, 4)
SENSORS = {"6.6 ms": Sensor(0.0066), "0.42 s": Sensor(0.42)}
TENANT = "default"

JOULES_PER_MAC = 3.5e-9
BUSY_WATTS = 6.0
STATIC_WATTS = 3.0
WRONG = 0.06

BUDGET, PERIOD, PERIODS, WARM, WARM_RATE = 120.0, 60.0, 4, 60.0, 10.0
BUDGET_RATES = {"shallower exits do": 10.0, "overloaded": 40.0}
CAP, RATE, STEP, CAPPED = 8.0, 12.0, 40.0, 100.0
LAST, RESERVE, DYNAMIC_WATTS, BATTERY_RATE = 600.0, 500.0, 3.2, 20.0


@dataclass(frozen=True)
class Burst:
    """Another program that draws ``watts`` from ``began`` to ``ended``."""

    began: float
    ended: float
    watts: float

    @property
    def block(self) -> tuple[float, float, float]:
        return self.began, self.ended, self.watts * (self.ended - self.began)

    def at(self, now: float) -> float:
        return self.watts if self.began <= now < self.ended else 0.0


BURST = Burst(60.0, 80.0, 1.0)


@lru_cache(maxsize=1)
def bundle() -> Bundle:
    return load_bundle(SHIPPED_BUNDLES / "cifar10-resnet")


def make_loop(
    controller: PriceController, sensor: Sensor, seed: int, other: Burst | None = None
) -> Loop:
    """A loop whose profile is wrong by up to ``WRONG`` for each segment, by chance of ``seed``."""
    macs = [exit.macs for exit in bundle().exits]
    joules = [JOULES_PER_MAC * (after - before) for before, after in pairwise([0, *macs])]
    wrong = np.random.default_rng([seed, 3]).uniform(1 - WRONG, 1 + WRONG, len(joules))
    machine = Machine(
        joules=tuple(joules),
        predicted=tuple((wrong * joules).tolist()),
        seconds=tuple(each / BUSY_WATTS for each in joules),
        static=STATIC_WATTS,
        other=(lambda now: 0.0) if other is None else other.at,
    )
    table = bundle().calibration
    return Loop(machine, table, Planner(table, PlannerSettings()), controller, sensor, seed)


def arrivals(seed: int, *stretches: tuple[float, float]) -> Floats:
    """Poisson arrivals: for each (seconds, rate) one after another."""
    rng, began, times = np.random.default_rng([seed, 5]), 0.0, []
    for seconds, rate in stretches:
        count = rng.poisson(seconds * rate)
        times.append(began + np.sort(rng.uniform(0, seconds, count)))
        began += seconds
    return np.concatenate(times)


def means(power: Power, began: float, ended: float, width: float, step: float = 0.05) -> Floats:
    """True mean watts of every stretch of ``width`` seconds from ``began`` to ``ended``."""
    moments = np.arange(began, ended - width + 1e-9, step)
    return (power.joules(moments + width) - power.joules(moments)) / width


def static_exit(joules: float, requests: int) -> tuple[int, float] | None:
    """The most accurate exit that ``requests`` could all have taken within ``joules``."""
    macs = [exit.macs for exit in bundle().exits]
    table = bundle().calibration
    within = [
        (table.accuracy(exit), exit)
        for exit, mac in enumerate(macs)
        if JOULES_PER_MAC * mac * requests <= joules
    ]
    if not within:
        return None
    accuracy, exit = max(within)
    return exit, accuracy


def run_budget(sensor: Sensor, seed: int, rate: float) -> tuple[Log, Budget]:
    """Periods under a budget; halfway the load doubles from ``rate`` requests a second.

    The budget is given after a minute of service, when attribution has found its feet: what it
    errs before is energy that no budget can know of (4 % of a budget given at the very start).
    """
    controller = PriceController(ControllerSettings(0.0))
    loop = make_loop(controller, sensor, seed)
    budget = Budget(BUDGET, PERIOD)
    loop.at(WARM, lambda: controller.set_budget(TENANT, budget, WARM))
    half = PERIODS * PERIOD / 2
    times = arrivals(seed, (WARM, WARM_RATE), (half, rate), (half, 2 * rate))
    return loop.run(WARM + 2 * half, [(TENANT, times)]), budget


def overrun(log: Log, budget: Budget) -> float:
    """By how much of the budget the worst stretch of one period was above it."""
    watts = means(log.power(0.0), WARM, WARM + PERIODS * PERIOD, budget.period, 0.2)
    return float(watts.max()) * budget.period / budget.joules - 1


def run_cap(sensor: Sensor, seed: int, other: Burst | None = None) -> Log:
    """A cap that binds once the load has grown fourfold at ``STEP``."""
    controller = PriceController(ControllerSettings(0.0))
    loop = make_loop(controller, sensor, seed, other)
    controller.set_watt_cap(CAP)
    times = arrivals(seed, (STEP, RATE), (CAPPED - STEP, 4 * RATE))
    return loop.run(CAPPED, [(TENANT, times)])


def run_battery(sensor: Sensor, seed: int) -> tuple[Log, Battery, int]:
    """A battery that would not last, and a load that doubles halfway; how many requests came."""
    controller = PriceController(ControllerSettings(0.0))
    loop = make_loop(controller, sensor, seed)
    battery = Battery((STATIC_WATTS + DYNAMIC_WATTS) * LAST + RESERVE, RESERVE, LAST)
    controller.set_battery(battery, 0.0)
    times = arrivals(seed, (LAST / 2, BATTERY_RATE), (LAST / 2, 2 * BATTERY_RATE))
    return loop.run(LAST, [(TENANT, times)]), battery, len(times)


def refused(log: Log) -> float:
    """The share of requests that were refused."""
    count = len(log.refused[TENANT])
    return count / (count + len(log.answered[TENANT]))


def claim(
    name: str, values: Sequence[float], unit: str, limit: float, at_most: bool = True
) -> Figure:
    """What must hold for every seed is claimed of the worst one."""
    worst = max(values) if at_most else min(values)
    return Figure(f"{name}, worst seed", (worst,), unit, limit, at_most)


def budget_figures(name: str, sensor: Sensor) -> list[Figure]:
    figures = []
    for label, rate in BUDGET_RATES.items():
        logs = [run_budget(sensor, seed, rate) for seed in SEEDS]
        what = f"budget, {label}, sensor of {name}"
        over = [100 * overrun(log, budget) for log, budget in logs]
        figures += [
            claim(f"{what}: overrun of any period", over, "%", 1.0),
            Figure(f"{what}: spent of it", tuple(100 + each for each in over), "%"),
            Figure(
                f"{what}: accuracy", tuple(100 * log.accuracy(TENANT, WARM) for log, _ in logs), "%"
            ),
            Figure(f"{what}: refused", tuple(100 * refused(log) for log, _ in logs), "%"),
        ]
    return figures


def cap_figures(name: str, sensor: Sensor) -> list[Figure]:
    powers, logs = [], [run_cap(sensor, seed) for seed in SEEDS]
    for log in logs:
        powers.append(log.power(STATIC_WATTS))
    share = 100 / CAP
    long = [share * float(means(power, 0.0, CAPPED, 10.0).max()) for power in powers]
    peak = [share * float(means(power, STEP - 2, CAPPED, 2.0).max()) for power in powers]
    late = [share * float(means(power, STEP + 5, CAPPED, 5.0).max()) for power in powers]
    kept = [share * float(means(power, STEP + 5, CAPPED, 10.0).mean()) for power in powers]
    what = f"watt cap, sensor of {name}"
    disturbed = []
    for seed in SEEDS:
        power = run_cap(sensor, seed, BURST).power(STATIC_WATTS, [BURST.block])
        disturbed.append(share * float(means(power, STEP, CAPPED, 10.0).max()))
    return [
        claim(f"{what}: greatest mean of 10 s", long, "%", 100.0),
        claim(f"{what}: greatest mean of 2 s after the step", peak, "%", 105.0),
        claim(f"{what}: greatest mean of 5 s from 5 s after it", late, "%", 100.0),
        Figure(f"{what}: mean of the cap from 5 s after it", tuple(kept), "%"),
        Figure(f"{what}: greatest mean of 10 s, other program", tuple(disturbed), "%"),
        Figure(
            f"{what}: accuracy", tuple(100 * log.accuracy(TENANT, STEP + 5) for log in logs), "%"
        ),
        Figure(f"{what}: refused", tuple(100 * refused(log) for log in logs), "%"),
    ]


def battery_figures(name: str, sensor: Sensor) -> list[Figure]:
    used, better, shares, accuracies = [], [], [], []
    for seed in SEEDS:
        log, battery, requests = run_battery(sensor, seed)
        available = battery.joules - battery.reserve
        spent = np.diff(log.power(STATIC_WATTS).joules([0.0, LAST]))
        used.append(abs(100 * float(spent[0]) / available - 100))
        static = static_exit(available - STATIC_WATTS * LAST, requests)
        right = sum(is_right for _, is_right in log.answered[TENANT]) / requests
        better.append(100 * (right - (0.0 if static is None else static[1])))
        accuracies.append(100 * right)
        shares.append(100 * refused(log))
    what = f"battery, sensor of {name}"
    return [
        claim(f"{what}: energy left or missing at its time", used, "%", 2.0),
        claim(f"{what}: right answers above the best static exit", better, "%", 0.0, False),
        Figure(f"{what}: right answers of all requests", tuple(accuracies), "%"),
        Figure(f"{what}: refused", tuple(shares), "%"),
    ]


def cost_figure(requests: int = 20_000, rounds: int = 5) -> Figure:
    """Microseconds of a request in the controller, with every constraint in force."""
    controller = PriceController(ControllerSettings(5.0))
    controller.set_watt_cap(CAP)
    controller.set_battery(Battery(1e6, 0.0, 1e5), 0.0)
    controller.set_budget(TENANT, Budget(1e5, 3600.0), 0.0)
    loop = make_loop(controller, SENSORS["6.6 ms"], 0)
    frontier = loop.plan(0.0, 0.0).frontier
    joules, values = frontier.least.energy or 0.0, []
    for round in range(rounds):
        began = time.perf_counter()
        for index in range(requests):
            now = round + index / requests
            if index % (requests // 10) == 0:
                controller.tick(PowerView(now, 5.0, 3.0, 0.0, 5.0 * now, 10.0))
            controller.price(TENANT)
            controller.arrived(now, TENANT, frontier)
            controller.allowance(TENANT, now)
            controller.reserve(TENANT, joules)
            controller.spent(TENANT, joules, joules)
            controller.settled(TENANT, joules, joules)
        values.append(1e6 * (time.perf_counter() - began) / requests)
    return Figure("energy control: time of a request in it", tuple(values), "us", 15.0)


def main() -> list[Figure]:
    print(f"\nenergy control in a closed loop, {len(SEEDS)} seeds")
    figures = [cost_figure()]
    for name, sensor in SENSORS.items():
        figures += budget_figures(name, sensor)
        figures += cap_figures(name, sensor)
        figures += battery_figures(name, sensor)
    for figure in figures:
        print(figure.line())
    return figures


if __name__ == "__main__":
    main()
