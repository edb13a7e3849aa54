from __future__ import annotations

from typing import Any

import pytest

from delen.core.energy_status import UNCHANGED, Battery, Budget, PowerChanges
from delen.errors import InvalidInput


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf"), "5", True, None])
@pytest.mark.parametrize("field", ["joules", "period"])
def test_a_budget_is_of_numbers_above_0(field: str, wrong: Any) -> None:
    with pytest.raises(InvalidInput, match=field) as caught:
        Budget(**{"joules": 5.0, "period": 60.0, field: wrong})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("joules", 0.0),
        ("last", 0),
        ("last", float("nan")),
        ("reserve", -1.0),
        ("reserve", float("nan")),
        ("reserve", "none"),
        ("reserve", 100.0),
    ],
)
def test_a_battery_holds_more_than_its_reserve(field: str, wrong: Any) -> None:
    with pytest.raises(InvalidInput, match=field) as caught:
        Battery(**{"joules": 100.0, "reserve": 10.0, "last": 60.0, field: wrong})
    assert caught.value.field == field


def test_changes_keep_what_is_not_named() -> None:
    changes = PowerChanges(watt_cap=None)
    assert changes.watt_cap is None
    assert changes.battery is UNCHANGED
    assert changes.mode is UNCHANGED
