from __future__ import annotations

from math import inf

import pytest

from delen.core.energy_status import Battery, Budget
from delen.core.frontier import Choice, Frontier
from delen.errors import BudgetExhausted, ConfigError, Overloaded
from policies.energy.api import ControllerSettings, EnergyController
from policies.energy.constraint import PowerView
from policies.energy.price_controller import PriceController
from policies.plugins import ENERGY_CONTROLLERS, find_plugin

FRONTIER = Frontier((Choice(0, None, 0.05, 0.8), Choice(1, None, 0.10, 0.88)))


@pytest.fixture
def controller() -> PriceController:
    return PriceController(ControllerSettings())


def load(controller: EnergyController, tenant: str, rate: float, seconds: float = 10.0) -> None:
    """``rate`` requests a second of ``tenant`` that all take the deepest exit."""
    count = int(rate * seconds)
    for index in range(count):
        controller.arrived(index / rate, tenant, FRONTIER)


def view(now: float, **known: float) -> PowerView:
    return PowerView(now, watts=7.0, static=3.0, other=0.0, joules=7.0 * now, **known)


def test_without_limits_energy_is_free(controller: PriceController) -> None:
    load(controller, "cam", 100.0)
    controller.tick(view(10.0))
    assert controller.price("cam") == 0.0
    assert controller.allowance("cam", 10.0) == inf
    assert [status.name for status in controller.constraints()] == ["thermal"]
    assert controller.battery() is None


def test_the_highest_price_rules_and_only_it_binds(controller: PriceController) -> None:
    controller.set_watt_cap(8.0)
    controller.set_battery(Battery(1e6, 0.0, 100.0), 10.0)
    controller.set_budget("cam", Budget(60.0, 60.0), 0.0)
    controller.set_budget("idle", Budget(60.0, 60.0), 0.0)
    load(controller, "cam", 15.0)
    load(controller, "door", 35.0)
    controller.tick(view(10.0, headroom=20.0))
    by_name = {status.name: status for status in controller.constraints()}
    assert list(by_name) == ["thermal", "watt_cap", "battery", "budget/cam", "budget/idle"]
    assert 0 < by_name["budget/cam"].price < inf
    assert controller.price("cam") == by_name["budget/cam"].price
    assert controller.price("door") == by_name["watt_cap"].price
    assert by_name["battery"].price == by_name["budget/idle"].price == 0.0
    assert not by_name["budget/idle"].binding
    assert by_name["budget/cam"].binding


def test_the_whole_pays_for_what_budgets_leave(controller: PriceController) -> None:
    """Each wants 4 W; a budget brings one of them down to 2 W, so that a cap that was too low for
    both costs the other nothing."""
    controller.set_watt_cap(8.0)
    load(controller, "cam", 40.0)
    load(controller, "door", 40.0)
    controller.tick(view(10.0))
    assert controller.price("door") > 0.0
    controller.set_budget("cam", Budget(150.0, 60.0), 10.0)
    for index in range(400):
        controller.arrived(10 + index / 40, "cam", FRONTIER)
        controller.arrived(10 + index / 40, "door", FRONTIER)
    for tick in range(50):
        controller.tick(view(20.0 + tick / 100))
    assert controller.price("cam") > 0.0
    assert controller.price("door") == 0.0


def test_reserved_joules_are_corrected_at_the_answer_and_when_settled(
    controller: PriceController,
) -> None:
    controller.set_budget("cam", Budget(60.0, 60.0), 0.0)

    def balance() -> float:
        return controller.budgets(1.0)["cam"].balance

    controller.reserve("cam", 1.0)
    assert balance() == pytest.approx(59.0)
    controller.spent("cam", 1.0, 0.4)
    assert balance() == pytest.approx(59.6)
    controller.settled("cam", 0.4, 0.5)
    assert balance() == pytest.approx(59.5)
    controller.reserve("cam", 1.0)
    controller.spent("cam", 1.0, 0.0)
    assert balance() == pytest.approx(59.5)
    controller.settled("nobody", 0.4, 0.5)


def test_a_refusal_names_what_takes_longest(controller: PriceController) -> None:
    controller.set_watt_cap(8.0)
    load(controller, "cam", 60.0)
    controller.tick(view(10.0))
    controller.reserve("cam", 2.0)
    overloaded = controller.refuse("cam", 0.05, 10.0)
    assert isinstance(overloaded, Overloaded)
    assert overloaded.retry_after > 0
    controller.set_budget("cam", Budget(1.0, 60.0), 10.0)
    controller.reserve("cam", 1.0)
    assert controller.allowance("cam", 10.0) == 0.0
    exhausted = controller.refuse("cam", 0.05, 10.0)
    assert isinstance(exhausted, BudgetExhausted)
    assert 1.0 < exhausted.retry_after < 91.0
    assert controller.allowance("door", 10.0) == 0.0


def test_limits_are_lifted_one_by_one(controller: PriceController) -> None:
    controller.set_watt_cap(1.0)
    controller.set_battery(Battery(10.0, 1.0, 100.0), 0.0)
    controller.set_budget("cam", Budget(1.0, 60.0), 0.0, spent=1.0)
    controller.tick(view(0.1))
    assert controller.allowance("cam", 0.1) == 0.0
    assert controller.budgets(0.1)["cam"].spent == 1.0
    controller.set_watt_cap(None)
    controller.set_battery(None, 0.1)
    controller.set_budget("cam", None, 0.1)
    controller.tick(view(0.2))
    assert controller.allowance("cam", 0.2) == inf
    assert controller.price("cam") == 0.0
    assert not controller.budgets(0.2)


def test_a_budget_set_again_keeps_what_was_spent(controller: PriceController) -> None:
    controller.set_budget("cam", Budget(10.0, 60.0), 0.0)
    controller.reserve("cam", 4.0)
    controller.set_budget("cam", Budget(20.0, 60.0), 1.0)
    assert controller.budgets(1.0)["cam"].balance == pytest.approx(16.0)


def test_the_controllers_that_ship_are_found_by_name() -> None:
    made = [
        find_plugin(ENERGY_CONTROLLERS, name)(ControllerSettings(0.0))
        for name in ("price", "least_energy")
    ]
    assert [controller.name for controller in made] == ["price", "least_energy"]
    assert [status.name for status in made[0].constraints()] == []
    (status,) = made[1].constraints()
    assert (status.name, status.price, made[1].price("cam")) == ("least_energy", inf, inf)
    with pytest.raises(ConfigError, match="least_energy, price"):
        find_plugin(ENERGY_CONTROLLERS, "magic")


def test_those_without_a_budget_are_one_demand_however_many_they_are(
    controller: PriceController,
) -> None:
    controller.set_watt_cap(16.0)
    controller.set_budget("cam", Budget(600.0, 60.0), 0.0)
    for index in range(1000):
        controller.arrived(index / 100, f"visitor-{index}", FRONTIER)
        controller.arrived(index / 100, "cam", FRONTIER)
    assert len(controller._demands) == 2
    controller.tick(view(10.0))
    assert 0 < controller.price("visitor-7") < inf


def test_a_margin_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="thermal_margin"):
        ControllerSettings(-1.0)
