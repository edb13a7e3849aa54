from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import delen.tenants.energy_file
from delen.core.energy_status import DayEnergy, EnergyTotal
from delen.tenants.energy_file import EnergyFile
from delen.tenants.energy_record import EnergyRecord


def total(tenant: str = "cam", joules: float = 1.0) -> EnergyTotal:
    return EnergyTotal(tenant, "m", 2, "attributed", joules)


@contextmanager
def opened(path: Path) -> Iterator[tuple[EnergyFile, EnergyRecord]]:
    file = EnergyFile(path)
    record = file.open()
    yield file, record
    file.close()


def test_what_is_saved_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state" / "energy.json"
    with opened(path) as (file, record):
        assert record.totals() == []
        record.add("2026-11-30", total("a/b"))
        record.add(None, total("cam", 2.0))
        file.save(0.0, record.copy)
    with opened(path) as (file, record):
        assert record.totals() == [total("a/b"), total("cam", 2.0)]
        assert record.by_tenant() == {
            "a/b": (DayEnergy("2026-11-30", 1.0, 0.0),),
            "cam": (DayEnergy(None, 2.0, 0.0),),
        }


def test_what_was_shown_is_there_after_a_power_cut(tmp_path: Path) -> None:
    path = tmp_path / "energy.json"
    with opened(path) as (file, record):
        record.add("2026-11-30", total())
        assert file.save(0.0, record.copy) == [total()]
        record.add("2026-11-30", total())
    with opened(path) as (_, record):
        assert record.totals() == [total()]


def test_it_is_written_by_itself_once_a_minute(tmp_path: Path) -> None:
    with opened(tmp_path / "energy.json") as (file, record):
        record.add("2026-11-30", total())
        assert file.is_due(0.0)
        file.save(0.0, record.copy)
        assert not file.is_due(59.0)
        assert file.is_due(60.0)


def test_nothing_is_written_where_nothing_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "energy.json"
    with opened(path) as (file, record):
        record.add("2026-11-30", total())
        file.save(0.0, record.copy)
        path.unlink()
        file.save(60.0, record.copy)
        assert not path.exists()


def test_a_second_process_counts_from_0_and_keeps_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "energy.json"
    with opened(path) as (file, record):
        record.add("2026-11-30", total())
        file.save(0.0, record.copy)
        with opened(path) as (second, other):
            assert not second.is_kept
            assert other.totals() == []
            other.add("2026-11-30", total(joules=50.0))
            assert not second.is_due(100.0)
            second.save(100.0, other.copy)
    with opened(path) as (_, record):
        assert record.totals() == [total()]
    assert "ERROR" not in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        "not json",
        {"schema": 2},
        {"format": "delen-tenants"},
        {"totals": [{"tenant": "a b", "model": "m", "exit": 1, "kind": "estimated", "joules": 1}]},
        {"totals": [{"tenant": "a", "model": "m", "exit": 1, "kind": "unknown", "joules": 1}]},
        {"days": {"2026-11-30": {"a": {"attributed_j": -1, "estimated_j": 0}}}},
        {"days": {"yesterday": {}}},
    ],
)
def test_a_damaged_file_is_named_and_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: object
) -> None:
    path = tmp_path / "energy.json"
    good = {"format": "delen-energy", "schema": 1, "totals": [], "days": {}}
    text = change if isinstance(change, str) else json.dumps({**good, **change})  # type: ignore[dict-item]
    path.write_text(text)
    with opened(path) as (file, record):
        assert record.totals() == []
        assert str(path) in caplog.text
        assert (tmp_path / "energy.json.damaged-1").read_text() == text
        record.add("2026-11-30", total())
        file.save(0.0, record.copy)
    with opened(path) as (_, record):
        assert record.totals() == [total()]


def test_where_it_cannot_be_written_energy_is_counted_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with opened(tmp_path / "file" / "energy.json") as (file, record):
        assert not file.is_kept
        record.add("2026-11-30", total())
        file.save(0.0, record.copy)
    assert "not kept" in caplog.text
    path = tmp_path / "state" / "energy.json"
    with opened(path) as (file, record):
        record.add("2026-11-30", total())
        path.mkdir()
        assert file.save(0.0, record.copy) == [total()]
        path.rmdir()
        file.save(60.0, record.copy)
    with opened(path) as (_, record):
        assert record.totals() == [total()]
    assert "energy of tenants is not kept" in caplog.text


def test_what_a_full_disk_loses_is_said_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(target: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    path = tmp_path / "energy.json"
    with opened(path) as (file, record):
        record.add("2026-11-30", total())
        with monkeypatch.context() as patch:
            patch.setattr(delen.tenants.energy_file, "write_atomically", is_full)
            file.save(0.0, record.copy)
            file.save(60.0, record.copy)
            assert "are lost" not in caplog.text
            file.close()
    last = caplog.records[-1]
    assert last.levelname == "ERROR" and last.exc_info is None
    assert str(path) in last.message and "No space left on device" in last.message
    caplog.clear()
    with opened(path) as (file, record):
        record.add("2026-11-30", total())
        with monkeypatch.context() as patch:
            patch.setattr(delen.tenants.energy_file, "write_atomically", is_full)
            file.save(0.0, record.copy)
        file.save(60.0, record.copy)
    assert "are lost" not in caplog.text
