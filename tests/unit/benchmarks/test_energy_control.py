"""The closed loop in small: a minute of each, in simulated time."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.closed_loop import Log
from benchmarks.energy_control import (
    SENSORS,
    STATIC_WATTS,
    TENANT,
    arrivals,
    make_loop,
    means,
    static_exit,
)
from delen.core.energy_status import Battery, Budget
from policies.energy.api import ControllerSettings
from policies.energy.price_controller import PriceController


def run(controller: PriceController, *stretches: tuple[float, float]) -> Log:
    loop = make_loop(controller, SENSORS["6.6 ms"], seed=1)
    until = sum(seconds for seconds, _ in stretches)
    return loop.run(until, [(TENANT, arrivals(1, *stretches))])


@pytest.fixture
def controller() -> PriceController:
    return PriceController(ControllerSettings(0.0))


def test_a_watt_cap_holds_through_a_step_of_the_load(controller: PriceController) -> None:
    controller.set_watt_cap(8.0)
    power = run(controller, (10.0, 10.0), (20.0, 45.0)).power(STATIC_WATTS)
    assert means(power, 0.0, 30.0, 10.0).max() <= 8.0
    assert means(power, 8.0, 30.0, 2.0).max() <= 1.05 * 8.0
    assert means(power, 15.0, 30.0, 10.0).mean() >= 0.85 * 8.0


def test_a_budget_is_kept_and_refuses_only_when_the_least_is_too_much(
    controller: PriceController,
) -> None:
    controller.set_budget(TENANT, Budget(40.0, 20.0), 0.0)
    log = run(controller, (25.0, 15.0), (25.0, 60.0))
    spent = 20.0 * means(log.power(0.0), 0.0, 50.0, 20.0)
    assert spent.max() <= 1.02 * 40.0
    assert all(time >= 25 for time, _ in log.refused[TENANT])
    assert len(log.refused[TENANT]) > 100


def test_a_battery_lasts_and_beats_the_best_static_exit(controller: PriceController) -> None:
    battery = Battery((STATIC_WATTS + 3.0) * 60.0 + 50.0, 50.0, 60.0)
    controller.set_battery(battery, 0.0)
    log = run(controller, (30.0, 18.0), (30.0, 36.0))
    used = float(np.diff(log.power(STATIC_WATTS).joules([0.0, 60.0]))[0])
    assert used == pytest.approx(battery.joules - battery.reserve, rel=0.02)
    requests = len(log.answered[TENANT]) + len(log.refused[TENANT])
    static = static_exit(battery.joules - battery.reserve - STATIC_WATTS * 60.0, requests)
    assert static is not None
    right = sum(is_right for _, is_right in log.answered[TENANT])
    assert right / requests > static[1]


def test_without_limits_nothing_is_refused_and_accuracy_is_lossless(
    controller: PriceController,
) -> None:
    log = run(controller, (20.0, 10.0))
    assert not log.refused[TENANT]
    assert log.accuracy(TENANT) > 0.88
