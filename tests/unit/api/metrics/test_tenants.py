from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from api.metrics.tenants import MAX_TENANTS, TenantCollector
from delen.core.energy_status import TenantChanges, TenantStatus

if TYPE_CHECKING:
    from tests.unit.api.conftest import MadeUpEnergy

SEEN = TenantStatus(
    None, None, 0.5, 0.25, 7, {"overloaded": 3, "infeasible_bound": 1}, 0.0,
    missed={"latency": 2}, seconds=1.5,
)  # fmt: skip


def registry(energy: MadeUpEnergy) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(TenantCollector(energy))
    return made


def test_what_tenants_got_is_told_by_tenant(energy: MadeUpEnergy) -> None:
    energy.set = {"cam": SEEN}
    told = registry(energy).get_sample_value
    assert told("delen_tenant_answers_total", {"tenant": "cam"}) == 7
    assert told("delen_tenant_refused_total", {"tenant": "cam", "code": "overloaded"}) == 3
    assert told("delen_tenant_bounds_missed_total", {"tenant": "cam", "bound": "latency"}) == 2
    assert told("delen_tenant_device_seconds_total", {"tenant": "cam"}) == 1.5
    assert told("delen_tenant_joules_total", {"tenant": "cam", "kind": "estimated"}) == 0.25
    assert told("delen_tenant_weight", {"tenant": "cam"}) is None
    assert told("delen_fairness_jain", {"by": "time"}) == 0.9
    assert told("delen_fairness_jain", {"by": "energy"}) is None


def test_invented_names_are_counted_together_and_set_ones_never(energy: MadeUpEnergy) -> None:
    energy.set = {f"t{number}": SEEN for number in range(MAX_TENANTS + 5)}
    energy.set["set"] = replace(SEEN, is_behind=True)
    energy.set_tenant("set", TenantChanges(weight=2.0))
    told = registry(energy).get_sample_value
    assert told("delen_tenant_answers_total", {"tenant": "_other"}) == 5 * 7
    assert told("delen_tenant_answers_total", {"tenant": "set"}) == 7
    assert told("delen_tenant_weight", {"tenant": "set"}) == 2.0
    assert told("delen_tenant_behind", {"tenant": "set"}) == 1.0
