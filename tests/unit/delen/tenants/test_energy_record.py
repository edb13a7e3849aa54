from __future__ import annotations

import time

import pytest

from delen.core.energy_status import DayEnergy, EnergyTotal, FinalKind
from delen.tenants.energy_record import (
    MAX_DAYS,
    MAX_TENANTS,
    OTHERS,
    EnergyRecord,
    local_date,
)

NOON = 1_796_040_000.0


def total(tenant: str = "cam", joules: float = 1.0, kind: FinalKind = "attributed") -> EnergyTotal:
    return EnergyTotal(tenant, "m", 2, kind, joules)


def test_joules_are_added_up_by_key_and_by_day() -> None:
    record = EnergyRecord()
    record.add("2026-11-29", total(joules=2.0))
    record.add("2026-11-30", total(joules=3.0))
    record.add("2026-11-30", total(joules=0.5, kind="estimated"))
    assert record.totals() == [total(joules=5.0), total(joules=0.5, kind="estimated")]
    assert record.by_tenant() == {
        "cam": (DayEnergy("2026-11-29", 2.0, 0.0), DayEnergy("2026-11-30", 3.0, 0.5))
    }


def test_only_the_last_days_with_energy_are_kept_and_all_totals() -> None:
    record = EnergyRecord()
    for number in range(40):
        record.add(f"2026-{1 + number // 28:02d}-{1 + number % 28:02d}", total())
    days = record.by_tenant()["cam"]
    assert len(days) == MAX_DAYS
    assert days[-1].date == "2026-02-12"
    assert record.totals() == [total(joules=40.0)]


def test_what_was_used_before_the_clock_was_set_counts_for_the_first_day_after() -> None:
    record = EnergyRecord()
    record.add("2026-11-29", total())
    record.add(None, total(joules=2.0))
    assert record.by_tenant()["cam"][-1] == DayEnergy(None, 2.0, 0.0)
    record.add("2026-11-30", total(joules=0.5))
    assert record.by_tenant()["cam"] == (
        DayEnergy("2026-11-29", 1.0, 0.0),
        DayEnergy("2026-11-30", 2.5, 0.0),
    )


def test_undated_energy_takes_no_days_place() -> None:
    record = EnergyRecord()
    for number in range(MAX_DAYS):
        record.add(f"2026-12-{1 + number:02d}", total())
    record.add(None, total())
    days = record.by_tenant()["cam"]
    assert len(days) == MAX_DAYS + 1
    assert (days[0].date, days[-1].date) == ("2026-12-01", None)


def test_tenants_beyond_the_limit_are_recorded_together_but_those_that_are_known() -> None:
    record = EnergyRecord()
    for number in range(MAX_TENANTS + 5):
        record.add("2026-11-30", total(f"t{number}"))
    record.know("set")
    record.add("2026-11-30", total("set"))
    joules = {each.tenant: each.joules for each in record.totals()}
    assert len(joules) == MAX_TENANTS + 2
    assert joules[OTHERS] == 5.0
    assert joules["set"] == 1.0


def test_names_of_long_ago_make_place_for_new_ones_and_no_joule_is_lost() -> None:
    totals = {(f"old{n}", "m", 2, "attributed"): 1.0 for n in range(MAX_TENANTS)}
    day = {"cam": DayEnergy("2026-11-30", 1.0, 0.0)}
    record = EnergyRecord({**totals, ("cam", "m", 2, "attributed"): 9.0}, {"2026-11-30": day})
    record.add("2026-11-30", total("new"))
    assert record.totals() == [total(OTHERS, 100.0), total("cam", 9.0), total("new")]


def test_a_copy_goes_on_apart() -> None:
    record = EnergyRecord()
    record.add("2026-11-30", total())
    same = record.copy()
    same.add("2026-11-30", total())
    same.add("2026-12-01", total("other"))
    assert record.totals() == [total()]
    assert record.by_tenant() == {"cam": (DayEnergy("2026-11-30", 1.0, 0.0),)}
    assert same.by_tenant()["cam"] == (DayEnergy("2026-11-30", 2.0, 0.0),)


@pytest.mark.parametrize(
    ("zone", "wall", "date"),
    [
        ("UTC", NOON, "2026-11-30"),
        ("UTC-14", NOON + 60, "2026-12-01"),
        ("UTC", 86_400.0, None),
        ("UTC", -1.0, None),
    ],
)
def test_days_are_by_local_time_and_there_are_none_before_the_clock_is_set(
    monkeypatch: pytest.MonkeyPatch, zone: str, wall: float, date: str | None
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert local_date(wall) == date
    finally:
        monkeypatch.undo()
        time.tzset()
