from __future__ import annotations

import time
from dataclasses import replace

import pytest

from api.dashboard.figures import _apps
from api.metrics.tenants import MAX_TENANTS
from delen.core.energy_status import DayEnergy
from tests.unit.api.conftest import NOBODY, STATUS


def test_energies_of_apps_are_unknown_without_a_source() -> None:
    none = replace(STATUS, source=None, kind="unknown", state="none")
    app = _apps(none, {"cam": NOBODY})["cam"]
    assert app.today is None and app.total is None
    assert app.answers == 1


def test_today_is_what_became_final_today() -> None:
    today = time.strftime("%Y-%m-%d")
    days = (DayEnergy("2020-01-01", 5.0, 5.0), DayEnergy(today, 2.0, 1.0))
    app = _apps(STATUS, {"cam": replace(NOBODY, attributed=7.0, estimated=6.0, days=days)})["cam"]
    assert app.today == pytest.approx(3.0) and app.total == pytest.approx(13.0)


def test_the_first_hundred_apps_are_listed_by_name() -> None:
    names = [f"app{number}" for number in reversed(range(MAX_TENANTS + 20))]
    listed = [*_apps(STATUS, dict.fromkeys(names, NOBODY))]
    assert listed == sorted(names[:MAX_TENANTS])
