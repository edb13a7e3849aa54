"""A made-up energy accounting, and the application over it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.guard import Guard
from api.metrics.requests import Metrics
from api.refusals import Refusals
from api.views import Service, create_control
from delen.core.device_status import (
    CoreStatus,
    CpuStatus,
    DeviceStatus,
    FanStatus,
    UnitStatus,
    ZoneStatus,
)
from delen.core.energy_status import (
    UNCHANGED,
    Battery,
    BatteryStatus,
    BoardEnergy,
    Budget,
    ConstraintStatus,
    EnergyTotal,
    ModeStatus,
    PowerChanges,
    PowerStatus,
    Settled,
    TenantChanges,
    TenantStatus,
    WindowStatus,
)
from delen.core.fairness import Fairness
from delen.core.result import AccuracyOutcome, EnergyOutcome, LatencyOutcome, Receipt
from delen.core.tenant import TenantSettings
from delen.errors import PowerError
from delen.wire.models import Health

STATUS = PowerStatus(
    source="ina3221",
    scope="module_input",
    kind="measured",
    watts=7.5,
    rails={"VDD_IN": 7.5, "VDD_SOC": -0.02},
    state="ok",
    since=12.0,
    problem=None,
    warning=None,
    age=0.03,
    board="Orin NX",
    mode=ModeStatus(2, "15W", "gpu612", False, ()),
    static=5.0,
    dynamic=2.0,
    other=None,
    time_constant=0.0066,
    price=0.0,
    controller="price",
    constraints=(),
    battery=None,
    window=None,
    errors=3,
    windows=40,
    board_energy=BoardEnergy(80.0, 200.0, -1.0),
    device=DeviceStatus(
        gpu=UnitStatus(0.42, 612e6),
        cpu=CpuStatus(0.25, 1984e6, (CoreStatus(0, 0.5, 1984e6), CoreStatus(1, None, 729.6e6))),
        emc=UnitStatus(None, 2133e6),
        fans=(FanStatus("pwmfan", 0.2, None),),
        zones=(ZoneStatus("cpu-thermal", 51.5), ZoneStatus("gpu-thermal", None)),
    ),
)
RECEIPT = Receipt(
    LatencyOutcome(None, 0.01, 0.001, 0.01, None),
    AccuracyOutcome(None, 0.9, 0.9, None, None),
    EnergyOutcome(None, 0.04, 0.03, "attributed", "ina3221", "module_input", None),
)


NOBODY = TenantStatus(None, None, 0.04, 0.0, 1, {}, 0.0)


class MadeUpEnergy:
    """Fulfils EnergyService with what the test puts into it."""

    def __init__(self) -> None:
        self.status = STATUS
        self.windows = [
            WindowStatus(t, 1.0, 7.5, {"VDD_IN": 7.5}, 2.0, 5.0, 0.5, "attributed", 0.0, "ok")
            for t in (100.0, 101.0)
        ]
        self.receipts = {"a-1": Settled("a-1", "m", "cam/1", 2, "confident", RECEIPT, True)}
        self.set: dict[str, TenantStatus] = {"cam/1": NOBODY}
        self.shared = Fairness(0.9, None)
        self.sums = [EnergyTotal("cam/1", "m", 2, "attributed", 0.04)]
        self.asked: list[float] = []

    def describe(self) -> PowerStatus:
        return self.status

    def history(self, seconds: float, step: float = 0.0) -> list[WindowStatus]:
        self.asked.append(seconds)
        return self.windows

    def receipt(self, request_id: str) -> Settled | None:
        return self.receipts.get(request_id)

    def tenants(self) -> dict[str, TenantStatus]:
        return self.set

    def fairness(self) -> Fairness:
        return self.shared

    def totals(self) -> list[EnergyTotal]:
        return self.sums

    def set_tenant(self, name: str, changes: TenantChanges) -> TenantStatus:
        tenant = self.set.get(name, NOBODY)
        settings = changes.applied(TenantSettings(tenant.weight, tenant.priority))
        tenant = replace(tenant, weight=settings.weight, priority=settings.priority)
        if changes.budget is None:
            tenant = replace(tenant, budget=None, balance=None)
        elif isinstance(changes.budget, Budget):
            tenant = replace(tenant, budget=changes.budget, balance=changes.budget.joules)
        self.set[name] = tenant
        return tenant

    def set_limits(self, changes: PowerChanges) -> None:
        if changes.mode is not UNCHANGED:
            raise PowerError("modes are not switched", "set power.switch_modes = true")
        if changes.watt_cap is not UNCHANGED:
            cap = changes.watt_cap
            self.status = replace(self.status, constraints=() if cap is None else (_cap(cap),))
        if changes.battery is not UNCHANGED:
            battery = changes.battery
            self.status = replace(self.status, battery=battery and _battery(battery))


def _cap(watts: Any) -> ConstraintStatus:
    return ConstraintStatus("watt_cap", "W", watts, 7.5, watts - 7.5, math.inf, True, "too much")


def _battery(battery: Any) -> BatteryStatus:
    assert isinstance(battery, Battery)
    return BatteryStatus(battery.joules, battery.reserve, battery.last, None, None)


@pytest.fixture
def energy() -> MadeUpEnergy:
    return MadeUpEnergy()


@pytest.fixture
def make_app(energy: MadeUpEnergy) -> Callable[..., Flask]:
    def make(token_file: Path | str = "") -> Flask:
        service = Service(
            runtime=None,  # type: ignore[arg-type]
            energy=energy,
            metrics=Metrics(),
            guard=Guard(str(token_file)),
            default_model="m",
            max_body=10_000,
            max_bodies=100_000,
            describe_device=lambda model: {},
            health=lambda: Health("ok", "0"),
            version="1",
        )
        return create_control(service, Refusals(service.metrics))

    return make


@pytest.fixture
def make_client(make_app: Callable[..., Flask]) -> Callable[..., FlaskClient]:
    return lambda token_file="": make_app(token_file).test_client()


@pytest.fixture
def client(make_client: Callable[..., FlaskClient]) -> FlaskClient:
    return make_client()
