from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.core.energy_status import UNCHANGED, Budget, DayEnergy, TenantChanges, TenantStatus
from delen.core.fairness import Fairness
from delen.errors import InvalidInput, UnknownField
from delen.wire import tenants
from delen.wire.message import Message, write
from delen.wire.requests import TenantChange


def plain(message: Message) -> Any:
    """``message`` as it comes out at the other end."""
    return json.loads(write(message))


def test_a_tenant_shows_what_is_set_and_what_it_got() -> None:
    tenant = TenantStatus(
        Budget(50.0, 60.0), -0.5, 30.0, 2.0, 400, {"overloaded": 5, "infeasible_bound": 2}, 0.1,
        weight=2.0, priority=3, missed={"latency": 4}, seconds=12.5, share=0.25, is_behind=True,
        days=(DayEnergy("2026-11-30", 3600.0, 1800.0), DayEnergy(None, 0.0, 36.0)),
    )  # fmt: skip
    assert plain(tenants.Tenant.of(tenant)) == {
        "weight": 2.0,
        "priority": 3,
        "budget": {"energy_j": 50.0, "period_s": 60.0, "balance_j": -0.5},
        "requests": 407,
        "answers": 400,
        "refused": 7,
        "refused_why": {"overloaded": 5, "infeasible_bound": 2},
        "missed": {"latency": 4, "accuracy": 0, "energy": 0},
        "energy_j": {"attributed": 30.0, "estimated": 2.0},
        "price_per_j": 0.1,
        "device": {"seconds": 12.5, "share": 0.25, "behind": True},
        "days": [
            {"date": "2026-11-30", "attributed_wh": 1.0, "estimated_wh": 0.5},
            {"date": None, "attributed_wh": 0.0, "estimated_wh": 0.01},
        ],
    }
    assert tenants.Tenant.of(dataclasses.replace(tenant, budget=None, balance=None)).budget is None


def test_a_fairness_that_is_unknown_is_null() -> None:
    assert plain(tenants.Fairness.of(Fairness(0.5, None))) == {"time": 0.5, "energy": None}


kept = st.just(UNCHANGED) | st.none()
changes = st.builds(
    TenantChanges,
    kept | st.builds(Budget, st.floats(1e-6, 1e6), st.floats(5.0, 1e6)),
    kept | st.floats(0.001, 1000.0),
    kept | st.integers(1, 9),
)


@given(changes.filter(lambda made: made != TenantChanges()))
def test_changes_come_back_as_they_were_sent(made: TenantChanges) -> None:
    assert TenantChange.read(plain(TenantChange.of(made))).changes() == made


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "energy_budget"),
        ({"energy_budget": 5}, "energy_budget"),
        ({"energy_budget": {}}, "energy_j"),
        ({"energy_budget": {"energy_j": 5}}, "period_s"),
        ({"energy_budget": {"energy_j": 0, "period_s": 60}}, "energy_j"),
        ({"energy_budget": {"energy_j": 5, "period_s": "60"}}, "period_s"),
        ({"energy_budget": {"energy_j": 5, "period_s": 4.9}}, "period_s"),
        ({"energy_budget": {"energy_j": 5, "period_s": 1e9}}, "period_s"),
        ({"weight": 0}, "weight"),
        ({"weight": -1}, "weight"),
        ({"weight": 1e-4}, "weight"),
        ({"weight": 1001}, "weight"),
        ({"weight": "2"}, "weight"),
        ({"weight": True}, "weight"),
        ({"priority": 0}, "priority"),
        ({"priority": 10}, "priority"),
        ({"priority": 2.5}, "priority"),
        ({"weight": 2, "priority": "first"}, "priority"),
    ],
)
def test_a_wrong_change_is_refused_by_name(document: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput, match=field) as caught:
        TenantChange.read(document).changes()
    assert caught.value.field == field


@pytest.mark.parametrize(
    "document",
    [
        {"energy_budget": {"energy_j": 5, "period_s": 60, "burst_j": 5}},
        {"energy_budget": None, "weights": 2},
        {"rank": 1},
    ],
)
def test_what_is_not_known_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(UnknownField, match="known: "):
        TenantChange.read(document).changes()
