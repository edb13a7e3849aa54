"""The energy controller that always saves: every request is answered with the least energy."""

from __future__ import annotations

from math import inf

from delen.core.energy_status import ConstraintStatus
from policies.energy.api import ControllerSettings
from policies.energy.price_controller import PriceController


class LeastEnergyController(PriceController):
    """An infinite price for all; caps and budgets refuse as they do under ``price``."""

    name = "least_energy"

    def price(self, tenant: str) -> float:
        return inf

    def constraints(self) -> tuple[ConstraintStatus, ...]:
        always = ConstraintStatus(
            name="least_energy",
            unit="",
            limit=0.0,
            value=None,
            headroom=None,
            price=inf,
            binding=True,
            explanation="the controller in force always takes the least energy",
        )
        return (always, *super().constraints())


def least_energy_controller(settings: ControllerSettings) -> LeastEnergyController:
    """The entry point ``least_energy``."""
    return LeastEnergyController(settings)
