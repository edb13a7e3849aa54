"""The energy controller ``price``: every constraint demands a price, and the highest one rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf

from delen.core.energy_status import Battery, BatteryStatus, Budget, ConstraintStatus
from delen.core.frontier import Frontier
from delen.errors import DelenError, Overloaded
from policies.energy.api import ControllerSettings
from policies.energy.background_power import Baseline
from policies.energy.battery import BatteryHorizon
from policies.energy.budget import BudgetState, TenantBudget
from policies.energy.constraint import Constraint, Market, PowerView
from policies.energy.demand import Demand, price_range, watts
from policies.energy.thermal import ThermalHeadroom
from policies.energy.watt_cap import WattCap

_MEMORY = 2.0
"""Seconds over which the demand of all is averaged."""

_PERIOD_SHARE = 0.25
_LONGEST_MEMORY = 300.0
"""A budget looks at its tenant's demand over this share of its period, but not for longer."""

_ANYBODY = ""
"""Stands for all tenants without a budget, who pay one price and may be very many."""

_WATT_CAP = "watt_cap"
_BATTERY = "battery"
_THERMAL = "thermal"


class PriceController:
    """Composes a watt cap, a battery horizon, thermal headroom and the budgets of tenants.

    The constraints on the whole device see what requests would draw given the budgets' prices: a
    tenant who pays more than the common price already draws less.
    """

    name = "price"

    def __init__(self, settings: ControllerSettings) -> None:
        self._common: dict[str, Constraint] = {}
        if settings.thermal_margin > 0:
            self._common[_THERMAL] = ThermalHeadroom(settings.thermal_margin)
        self._budgets: dict[str, TenantBudget] = {}
        self._budget_demands: dict[str, Demand] = {}
        self._demands: dict[str, Demand] = {}
        self._horizon: BatteryHorizon | None = None
        self._baseline = Baseline()
        self._margins: Mapping[str, float] = {}
        self._used = 0.0
        self._price = 0.0

    def tick(self, view: PowerView) -> None:
        used, self._used = self._used, 0.0
        self._baseline.tick(view, used)
        self._margins = view.margins
        for tenant, budget in self._budgets.items():
            budget.margin = self._margin(tenant)
            budget.tick(view.now, _market(self._budget_demands[tenant].rates(view.now)))
        market = self._common_market(view.now, used)
        for constraint in self._common.values():
            constraint.tick(view, market)
        self._price = max((c.price for c in self._common.values()), default=0.0)

    def price(self, tenant: str) -> float:
        budget = self._budgets.get(tenant)
        return self._price if budget is None else max(self._price, budget.price)

    def arrived(self, now: float, tenant: str, frontier: Frontier) -> None:
        payer = tenant if tenant in self._budgets else _ANYBODY
        if payer not in self._demands:
            self._demands[payer] = Demand(_MEMORY)
        self._demands[payer].arrived(now, frontier)
        if tenant in self._budget_demands:
            self._budget_demands[tenant].arrived(now, frontier)

    def allowance(self, tenant: str, now: float) -> float:
        budget = self._budgets.get(tenant)
        least = inf if budget is None else budget.allowance(now)
        for constraint in self._common.values():
            allowed = constraint.allowance(now)
            if allowed < least:
                least = allowed
        return least

    def refuse(self, tenant: str, least: float, now: float) -> DelenError:
        limits: dict[str, Constraint | TenantBudget] = dict(self._common)
        if tenant in self._budgets:
            limits[f"budget/{tenant}"] = self._budgets[tenant]
        refusals = []
        for name, limit in limits.items():
            if limit.allowance(now) < least:
                refusal = limit.refuse(least, now)
                refusal.constraint = name
                refusals.append(refusal)
        if not refusals:
            return Overloaded("the energy for it was just given to others", retry_after=_MEMORY)
        return max(refusals, key=lambda refusal: refusal.retry_after)

    def reserve(self, tenant: str, joules: float) -> None:
        if tenant in self._budgets:
            self._budgets[tenant].reserve(joules)
        self._spend(joules)

    def spent(self, tenant: str, reserved: float, used: float) -> None:
        self._used += used
        if tenant in self._budgets:
            self._budgets[tenant].reserve(-reserved)
            self._budgets[tenant].charge(used)
        self._spend(used - reserved)

    def settled(self, tenant: str, estimated: float, attributed: float) -> None:
        if tenant in self._budgets:
            self._budgets[tenant].charge(attributed - estimated)

    def constraints(self) -> Sequence[ConstraintStatus]:
        statuses = [constraint.status() for constraint in self._common.values()]
        made = [replace(own, binding=0 < own.price == self._price) for own in statuses]
        for budget in self._budgets.values():
            own = budget.status()
            made.append(replace(own, binding=0 < own.price >= self._price))
        return tuple(made)

    def battery(self) -> BatteryStatus | None:
        return None if self._horizon is None else self._horizon.describe()

    def set_watt_cap(self, watts: float | None) -> None:
        self._set(_WATT_CAP, None if watts is None else WattCap(watts))

    def set_battery(self, battery: Battery | None, now: float) -> None:
        self._horizon = None if battery is None else BatteryHorizon(battery, now)
        self._set(_BATTERY, self._horizon)

    def set_budget(
        self, tenant: str, budget: Budget | None, now: float, spent: float = 0.0
    ) -> None:
        earlier = self._budgets.pop(tenant, None)
        self._budget_demands.pop(tenant, None)
        if budget is None:
            return
        made = TenantBudget(tenant, budget, now)
        made.margin = self._margin(tenant)
        if earlier is not None:
            made.adopt(earlier)
        made.charge(spent)
        memory = min(max(_PERIOD_SHARE * budget.period, _MEMORY), _LONGEST_MEMORY)
        self._budgets[tenant], self._budget_demands[tenant] = made, Demand(memory)

    def budgets(self, now: float) -> Mapping[str, BudgetState]:
        return {tenant: budget.state(now) for tenant, budget in self._budgets.items()}

    def _set(self, name: str, constraint: Constraint | None) -> None:
        if constraint is None:
            self._common.pop(name, None)
        else:
            self._common[name] = constraint

    def _spend(self, joules: float) -> None:
        for constraint in self._common.values():
            constraint.spend(joules)

    def _margin(self, tenant: str) -> float:
        return self._margins.get(tenant, self._margins.get(_ANYBODY, 1.0))

    def _common_market(self, now: float, used: float) -> Market:
        rates = {tenant: demand.rates(now) for tenant, demand in self._demands.items()}
        self._demands = {t: demand for t, demand in self._demands.items() if rates[t]}
        floors = {t: self._budgets[t].price for t in rates if t in self._budgets}

        def watts_at(price: float) -> float:
            return sum(watts(seen, max(price, floors.get(t, 0.0))) for t, seen in rates.items())

        between = price_range(rate for seen in rates.values() for rate in seen)
        return Market(watts_at, between, self._baseline.watts, self._baseline.measured, used)


def _market(rates: Sequence[tuple[float, Frontier]]) -> Market:
    return Market(lambda price: watts(rates, price), price_range(rates))


def price_controller(settings: ControllerSettings) -> PriceController:
    """The entry point ``price``."""
    return PriceController(settings)
