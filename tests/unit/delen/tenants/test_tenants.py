from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from delen.core.energy_status import Budget, DayEnergy, TenantChanges
from delen.core.tenant import TenantSettings
from delen.energy.admission import ControllerAdmission
from delen.errors import NotKept
from delen.tenants.moment import Moment, read_moment
from delen.tenants.store import StoredTenant, TenantStore
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
    day = DayEnergy("2026-11-30", 1.0, 0.0)
    days = {"calm": (day,), "_other": (day, day)}
    status = tenants.status(booked, recent, days)
    shares = [(name, each.share) for name, each in status.items()]
    assert shares == [("greedy", 0.75), ("calm", 0.25), ("_other", None), ("set", None)]
    assert status["_other"].days == (day, day)
    assert [name for name, each in status.items() if each.is_behind] == ["greedy"]
    assert (status["set"].weight, status["calm"].weight) == (2.0, None)
    assert (status["greedy"].seconds, status["greedy"].answers) == (9.0, 4)
    assert (status["calm"].days, status["greedy"].days) == (days["calm"], ())


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
        assert set(file.load(read_moment())) == set(names)
        file.save({}, read_moment())
    assert caplog.text == ""


class FullDisk(TenantStore):
    """Refuses to write while ``is_full``; ``look`` is called at each attempt."""

    is_full = False

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.look: Callable[[], None] = lambda: None

    def save(self, stored: Mapping[str, StoredTenant], now: Moment) -> None:
        self.look()
        if self.is_full:
            raise NotKept("no space left on device")
        super().save(stored, now)


def test_what_cannot_be_kept_is_not_in_force(tmp_path: Path) -> None:
    file, host = FullDisk(tmp_path / "tenants.json"), Host()
    controller = ControllerAdmission(PriceController(ControllerSettings()))
    tenants = Tenants(controller, file)
    tenants.start(host)
    tenants.change("cam", TenantChanges(Budget(10.0, 60.0), weight=2.0))
    before, text = dict(host.all_settings), file_text(tmp_path)
    file.is_full = True
    for changes in (
        TenantChanges(weight=3.0),
        TenantChanges(priority=1),
        TenantChanges(budget=None),
        TenantChanges(Budget(20.0, 60.0), weight=None),
    ):
        for name in ("cam", "other"):
            if name == "other" and changes == TenantChanges(budget=None):
                continue
            with pytest.raises(NotKept):
                tenants.change(name, changes)
    assert host.all_settings == before
    assert controller.budgets()["cam"].budget == Budget(10.0, 60.0)
    assert tenants.are_set() == {"cam"}
    assert file_text(tmp_path) == text
    file.is_full = False
    tenants.change("cam", TenantChanges(weight=3.0))
    assert tenants.weight("cam") == 3.0


def test_a_change_is_in_the_file_before_it_is_in_force(tmp_path: Path) -> None:
    file, host = FullDisk(tmp_path / "tenants.json"), Host()
    controller = ControllerAdmission(PriceController(ControllerSettings()))
    tenants = Tenants(controller, file)
    tenants.start(host)
    seen: list[tuple[int, int]] = []
    file.look = lambda: seen.append((len(host.all_settings), len(controller.budgets())))
    tenants.change("cam", TenantChanges(Budget(10.0, 60.0), weight=2.0))
    assert seen == [(0, 0)]
    assert (len(host.all_settings), len(controller.budgets())) == (1, 1)


def test_what_was_spent_is_kept_under_a_new_budget(tmp_path: Path) -> None:
    file = TenantStore(tmp_path / "tenants.json")
    controller = ControllerAdmission(PriceController(ControllerSettings()))
    controller.set_budget("cam", Budget(10.0, 3600.0), spent=4.0)
    Tenants(controller, file).change("cam", TenantChanges(Budget(20.0, 7200.0)))
    assert file.load(read_moment())["cam"].spent == pytest.approx(4.0, abs=0.1)


def test_spending_that_cannot_be_kept_is_logged_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, failed: Callable[[str], int]
) -> None:
    (tmp_path / "file").touch()
    file = TenantStore(tmp_path / "file" / "tenants.json")
    controller = ControllerAdmission(PriceController(ControllerSettings()))
    tenants = Tenants(controller, file)
    caplog.clear()
    controller.set_budget("cam", Budget(10.0, 60.0), spent=4.0)
    for _ in range(2):
        tenants.save()
    assert (len(caplog.records), failed("tenants_file")) == (1, 2)
    assert str(tmp_path / "file") in caplog.text


def file_text(folder: Path) -> str:
    return (folder / "tenants.json").read_text()
