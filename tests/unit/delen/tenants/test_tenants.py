from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from delen.core.energy_status import Budget, TenantChanges
from delen.core.tenant import TenantSettings
from delen.energy.admission import ControllerAdmission
from delen.tenants.store import TenantStore
from delen.tenants.tenants import Tenants
from delen.tenants.usage import RecentUsage, TenantTotals
from policies.energy.api import ControllerSettings
from policies.energy.price_controller import PriceController


class Host:
    """Remembers the settings of its tenants; ``late`` are behind."""

    def __init__(self, *late: str) -> None:
        self.all_settings: dict[str, TenantSettings] = {}
        self.late = late

    def set_tenant(self, tenant: str, settings: TenantSettings) -> None:
        self.all_settings[tenant] = settings

    def behind(self, tenants: Iterable[str]) -> set[str]:
        return set(tenants) & set(self.late)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], Tenants]:
    """Makes what a daemon would, on one file."""
    file = TenantStore(tmp_path / "tenants.json")
    return lambda: Tenants(ControllerAdmission(PriceController(ControllerSettings())), file)


def test_settings_reach_the_host_and_outlive_the_daemon(make: Callable[[], Tenants]) -> None:
    tenants, host = make(), Host()
    tenants.change("early", TenantChanges(weight=3.0))
    tenants.start(host)
    assert host.all_settings == {"early": TenantSettings(3.0)}
    tenants.change("early", TenantChanges(priority=2))
    assert host.all_settings["early"] == TenantSettings(3.0, 2), "what is not named stays"
    tenants.change("budget", TenantChanges(budget=Budget(10.0, 60.0)))
    again, other = make(), Host()
    again.start(other)
    assert other.all_settings == {"early": TenantSettings(3.0, 2)}
    assert again.are_set() == {"early", "budget"}
    assert (again.weight("early"), again.weight("budget")) == (3.0, 1.0)
    again.change("early", TenantChanges(weight=None, priority=None))
    assert other.all_settings["early"] == TenantSettings()
    assert make().are_set() == {"budget"}


def test_what_tenants_got_is_shown_beside_what_is_set(make: Callable[[], Tenants]) -> None:
    tenants = make()
    tenants.start(Host("greedy"))
    tenants.change("set", TenantChanges(weight=2.0))
    recent = {"greedy": RecentUsage(seconds=3.0), "calm": RecentUsage(seconds=1.0)}
    booked = {"greedy": TenantTotals(seconds=9.0, answers=4), "calm": TenantTotals()}
    status = tenants.status(booked, recent)
    shares = [(name, each.share) for name, each in status.items()]
    assert shares == [("greedy", 0.75), ("calm", 0.25), ("set", None)]
    assert [name for name, each in status.items() if each.is_behind] == ["greedy"]
    assert (status["set"].weight, status["calm"].weight) == (2.0, None)
    assert (status["greedy"].seconds, status["greedy"].answers) == (9.0, 4)


def test_budgets_that_are_set_at_once_are_all_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = TenantStore(tmp_path / "tenants.json")
    names = [f"camera-{number}" * (1 + number % 5) for number in range(12)]
    for _ in range(5):
        tenants = Tenants(ControllerAdmission(PriceController(ControllerSettings())), file)
        with caplog.at_level(logging.ERROR), ThreadPoolExecutor(12) as pool:
            changes = TenantChanges(Budget(10.0, 60.0), weight=2.0)
            list(pool.map(tenants.change, names, [changes] * len(names)))
        assert set(file.load(0.0)) == set(names)
        file.save({}, 0.0)
    assert caplog.text == ""


def test_a_file_that_cannot_be_written_is_logged_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, failed: Callable[[str], int]
) -> None:
    (tmp_path / "file").touch()
    file = TenantStore(tmp_path / "file" / "tenants.json")
    tenants = Tenants(ControllerAdmission(PriceController(ControllerSettings())), file)
    caplog.clear()
    for weight in (2.0, 3.0):
        tenants.change("cam", TenantChanges(weight=weight))
    assert (len(caplog.records), failed("tenants_file")) == (1, 2)
    assert str(tmp_path / "file") in caplog.text
    assert tenants.weight("cam") == 3.0
