from __future__ import annotations

from pathlib import Path

import pytest

from delen.core.energy_status import Budget
from delen.core.tenant import TenantSettings
from delen.tenants.store import StoredTenant, TenantsError, TenantStore


def test_budgets_survive_and_refill_meanwhile(tmp_path: Path) -> None:
    file = TenantStore(tmp_path / "state" / "tenants.json")
    assert file.load(now=1000.0) == {}
    stored = {
        "cam/1": StoredTenant(Budget(60.0, 60.0), 20.0),
        "b": StoredTenant(Budget(1.0, 3600.0), 0.25),
    }
    stored["c"] = StoredTenant(settings=TenantSettings(2.5, 3))
    stored["d"] = StoredTenant(Budget(1.0, 3600.0), 0.25, TenantSettings(priority=9))
    file.save(stored, now=1000.0)
    assert file.load(now=1000.0) == stored
    assert file.load(now=1005.0)["cam/1"].spent == pytest.approx(15.0)
    assert file.load(now=2000.0)["cam/1"].spent == 0
    assert file.load(now=900.0) == stored  # the clock went back


def test_a_save_replaces_all(tmp_path: Path) -> None:
    file = TenantStore(tmp_path / "tenants.json")
    file.save({"a": StoredTenant(Budget(1.0, 60.0), 0.0)}, 0.0)
    file.save({}, 0.0)
    assert file.load(0.0) == {}
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
def test_a_damaged_file_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "tenants.json"
    path.write_text(text)
    assert TenantStore(path).load(0.0) == {}
    assert str(path) in caplog.text


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TenantsError, match=r"tenants\.json cannot be written"):
        TenantStore(tmp_path / "file" / "tenants.json").save({}, 0.0)
