from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from api.metrics.energy import EnergyCollector
from api.metrics.tenants import MAX_TENANTS
from delen.core.energy_status import Budget, ConstraintStatus, EnergyTotal, TenantChanges
from tests.unit.api.conftest import NOBODY

if TYPE_CHECKING:
    from tests.unit.api.conftest import MadeUpEnergy

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(energy: MadeUpEnergy) -> Samples:
    registry = CollectorRegistry()
    registry.register(EnergyCollector(energy))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_power_is_told_by_rail_part_and_state(energy: MadeUpEnergy) -> None:
    told = samples(energy)
    source = (("scope", "module_input"), ("source", "ina3221"))
    assert told["delen_power_watts", source] == 7.5
    assert told["delen_power_rail_watts", (("rail", "VDD_SOC"),)] == -0.02
    assert told["delen_power_part_watts", (("part", "static"),)] == 5.0
    assert ("delen_power_part_watts", (("part", "other"),)) not in told
    states = [
        told["delen_power_source_state", (("state", name),)] for name in ("ok", "degraded", "none")
    ]
    assert states == [1.0, 0.0, 0.0]
    assert told["delen_power_reading_errors_total", ()] == 3
    assert told["delen_power_windows_total", ()] == 40
    assert told["delen_board_energy_joules", (("part", "other"),)] == -1.0
    assert told["delen_board_joules_total", ()] == 279.0
    assert told["delen_energy_price", ()] == 0.0


def test_what_is_unknown_is_left_out(energy: MadeUpEnergy) -> None:
    energy.status = replace(energy.status, source=None, watts=None, rails={}, state="none")
    names = {name for name, _ in samples(energy)}
    assert "delen_power_watts" not in names
    energy.status = replace(energy.status, kind="unknown")
    assert "delen_board_joules_total" not in {name for name, _ in samples(energy)}
    assert "delen_power_rail_watts" not in names


def test_a_reading_that_is_no_longer_good_is_left_out(energy: MadeUpEnergy) -> None:
    assert energy.status.watts is not None
    energy.status = replace(energy.status, state="degraded")
    told = dict(samples(energy))
    assert not any(name.startswith("delen_power_watts") for name, _ in told)
    assert told["delen_power_source_state", (("state", "degraded"),)] == 1.0


def test_joules_are_told_by_model_tenant_exit_and_kind(energy: MadeUpEnergy) -> None:
    energy.sums = [
        EnergyTotal("a", "m", 2, "attributed", 0.04),
        EnergyTotal("a", "m", 2, "estimated", 0.01),
        *(EnergyTotal(f"t{number}", "m", 0, "attributed", 1.0) for number in range(MAX_TENANTS)),
    ]
    energy.set = {total.tenant: NOBODY for total in energy.sums}
    told = samples(energy)

    def joules(tenant: str, exit: int, kind: str) -> float:
        labels = (("exit", str(exit)), ("kind", kind), ("model", "m"), ("tenant", tenant))
        return told["delen_energy_joules_total", labels]

    assert joules("a", 2, "attributed") == 0.04
    assert joules("a", 2, "estimated") == 0.01
    assert joules("t98", 0, "attributed") == 1.0
    assert joules("_other", 0, "attributed") == 1.0


def test_control_is_told_by_constraint_and_budget(energy: MadeUpEnergy) -> None:
    cap = ConstraintStatus("watt_cap", "W", 8.0, 7.5, 0.5, math.inf, True, "close")
    energy.status = replace(energy.status, constraints=(cap,), price=math.inf)
    energy.set_tenant("a", TenantChanges(Budget(50.0, 60.0)))
    energy.set["a"] = replace(energy.set["a"], price=0.25)
    energy.set_tenant("b", TenantChanges(weight=2.0))
    told = samples(energy)
    assert told["delen_energy_price", ()] == math.inf
    assert told["delen_constraint_price", (("constraint", "watt_cap"),)] == math.inf
    assert told["delen_constraint_headroom", (("constraint", "watt_cap"), ("unit", "W"))] == 0.5
    assert told["delen_budget_balance_joules", (("tenant", "a"),)] == 50.0
    assert told["delen_budget_price", (("tenant", "a"),)] == 0.25
    for name in ("delen_budget_balance_joules", "delen_budget_price"):
        assert (name, (("tenant", "b"),)) not in told
