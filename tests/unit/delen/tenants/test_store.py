from __future__ import annotations

from pathlib import Path

import pytest

from delen.core.energy_status import Budget
from delen.core.tenant import TenantSettings
from delen.errors import NotKept
from delen.tenants.moment import EARLIEST, Moment
from delen.tenants.store import StoredTenant, TenantStore
from tests.other_user import as_other_user, open_folder

BOOT = Moment(EARLIEST + 1000.0, "boot", 100.0)


def test_budgets_survive_and_refill_meanwhile(tmp_path: Path) -> None:
    file = TenantStore(tmp_path / "state" / "tenants.json")
    assert file.load(BOOT) == {}
    stored = {
        "cam/1": StoredTenant(Budget(60.0, 60.0), 20.0),
        "b": StoredTenant(Budget(1.0, 3600.0), 0.25),
    }
    stored["c"] = StoredTenant(settings=TenantSettings(2.5, 3))
    stored["d"] = StoredTenant(Budget(1.0, 3600.0), 0.25, TenantSettings(priority=9))
    file.save(stored, BOOT)
    assert file.load(BOOT) == stored
    later = Moment(BOOT.wall + 5.0, "boot", BOOT.uptime + 5.0)
    assert file.load(later)["cam/1"].spent == pytest.approx(15.0)
    assert file.load(Moment(BOOT.wall + 1000.0, "next", 10.0))["cam/1"].spent == 0
    assert file.load(Moment(BOOT.wall - 100.0)) == stored  # the clock went back


def test_a_budget_of_1970_is_still_spent_once_the_clock_is_right(tmp_path: Path) -> None:
    file = TenantStore(tmp_path / "tenants.json")
    stored = {"camera": StoredTenant(Budget(5.0, 86_400.0), 5.0)}
    file.save(stored, Moment(86_400.0, "boot", 50.0))
    for now in (
        Moment(1.79e9, "boot", 110.0),
        Moment(86_460.0, "boot", 110.0),
        Moment(1.79e9, "next", 60.0),
        Moment(3.0, "next", 60.0),
    ):
        assert file.load(now)["camera"].spent == pytest.approx(5.0 - 60 * 5 / 86_400)
    assert file.load(Moment(1.79e9)) == stored


def test_a_file_without_the_boot_is_read(tmp_path: Path) -> None:
    """As it was written before boots were noted."""
    path = tmp_path / "tenants.json"
    path.write_text(
        '{"format": "delen-tenants", "schema": 1, "saved_s": 1790000000.0, "tenants": '
        '{"a": {"energy_j": 60, "period_s": 60, "spent_j": 20}}}'
    )
    assert TenantStore(path).load(Moment(1.79e9 + 5, "boot", 9.0))["a"].spent == 15.0
    assert TenantStore(path).load(Moment(5.0, "boot", 5.0))["a"].spent == 20.0


def test_a_save_replaces_all(tmp_path: Path) -> None:
    file = TenantStore(tmp_path / "tenants.json")
    file.save({"a": StoredTenant(Budget(1.0, 60.0), 0.0)}, BOOT)
    file.save({}, BOOT)
    assert file.load(BOOT) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["tenants.json"]


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        "{}",
        '{"format": "delen-tenants", "schema": 2, "saved_s": 0, "tenants": {}}',
        '{"format": "delen-tenants", "schema": 1, "saved_s": 0, "tenants": {"a": 3}}',
        '{"format": "delen-tenants", "schema": 1, "saved_s": 0, "tenants": {"a b": '
        '{"energy_j": 1, "period_s": 60, "spent_j": 0}}}',
        '{"format": "delen-tenants", "schema": 1, "saved_s": 0, "tenants": {"a": '
        '{"energy_j": -1, "period_s": 60, "spent_j": 0}}}',
        '{"format": "delen-tenants", "schema": 1, "saved_s": 0, "tenants": {"a": {"weight": 0}}}',
        '{"format": "delen-tenants", "schema": 1, "saved_s": 0, "tenants": {"a": {"rank": 1}}}',
    ],
)
def test_a_damaged_file_is_named_passed_over_and_never_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "tenants.json"
    for number in (1, 2):
        path.write_text(text)
        file = TenantStore(path)
        assert file.load(BOOT) == {}
        assert str(path) in caplog.text
        assert path.read_text() == text, "it stays until something is kept"
        file.save({}, BOOT)
        aside = tmp_path / f"tenants.json.damaged-{number}"
        assert aside.read_text() == text
        assert str(aside) in caplog.text
        file.save({}, BOOT)
    assert file.load(BOOT) == {}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_that_may_not_be_read_is_not_lost() -> None:
    with open_folder() as folder:
        path = folder / "tenants.json"
        TenantStore(path).save({"a": StoredTenant(settings=TenantSettings(2.0))}, BOOT)
        text = path.read_text()
        path.chmod(0o000)
        folder.chmod(0o777)
        with as_other_user():
            file = TenantStore(path)
            assert file.load(BOOT) == {}
            file.save({}, BOOT)
        aside = folder / "tenants.json.damaged-1"
        aside.chmod(0o600)
        assert aside.read_text() == text


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotKept, match=r"tenants\.json cannot be written"):
        TenantStore(tmp_path / "file" / "tenants.json").save({}, BOOT)
