from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from delen.errors import SensorAbsent, SensorDenied, SensorFailed
from power.sources.rapl import FOLDER, Rapl

SPAN = 262_143_328_850


class Clock:
    """Stands in for the module ``time``: only sleeping lets time pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("power.sources.rapl.time", clock)
    return clock


Zone = Callable[..., Path]


@pytest.fixture
def zone(tmp_path: Path) -> Iterator[Zone]:
    """Makes a zone of powercap, or sets its counter."""

    def write(folder: str, name: str, microjoules: int, span: int = SPAN) -> Path:
        path = tmp_path / FOLDER / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / "name").write_text(f"{name}\n")
        (path / "energy_uj").write_text(f"{microjoules}\n")
        (path / "max_energy_range_uj").write_text(f"{span}\n")
        return path / "energy_uj"

    (tmp_path / FOLDER / "intel-rapl").mkdir(parents=True)
    return write


def test_packages_alone_are_summed(zone: Zone, tmp_path: Path, clock: Clock) -> None:
    parts = [
        ("intel-rapl:0", "package-0", 10.0),
        ("intel-rapl:0:0", "core", 6.0),
        ("intel-rapl:0:1", "uncore", 1.0),
        ("intel-rapl:0:2", "dram", 2.0),
        ("intel-rapl:1", "package-1-die-0", 4.0),
        ("intel-rapl:2", "psys", 30.0),
        ("intel-rapl-mmio:0", "package-0", 10.0),
    ]
    for folder, name, _ in parts:
        zone(folder, name, 5_000_000)
    rapl = Rapl(tmp_path)
    clock.now += 0.5
    for folder, name, watts in parts:
        zone(folder, name, 5_000_000 + round(watts * 0.5 * 1e6))
    reading = rapl.read()
    assert reading.rails == pytest.approx({"package-0": 10.0, "package-1-die-0": 4.0})
    assert reading.total == pytest.approx(14.0)
    assert reading.joules == pytest.approx(7.0)
    assert reading.time == clock.now


def test_a_counter_that_wraps_goes_on(zone: Zone, tmp_path: Path, clock: Clock) -> None:
    zone("intel-rapl:0", "package-0", SPAN - 2_000_000)
    rapl = Rapl(tmp_path)
    joules = []
    for count in (SPAN - 1_000_000, 500_000, 2_500_000):
        clock.now += 0.25
        zone("intel-rapl:0", "package-0", count)
        joules.append(rapl.read().joules)
    assert joules == pytest.approx([1.0, 2.5, 4.5])


def test_a_counter_that_was_reset_is_no_energy(zone: Zone, tmp_path: Path, clock: Clock) -> None:
    zone("intel-rapl:0", "package-0", 100_000_000)
    rapl = Rapl(tmp_path)
    clock.now += 0.25
    zone("intel-rapl:0", "package-0", 0)
    with pytest.raises(SensorFailed, match="jumped"):
        rapl.read()
    clock.now += 0.5
    zone("intel-rapl:0", "package-0", 1_000_000)
    reading = rapl.read()
    assert (reading.total, reading.joules) == pytest.approx((2.0, 1.0))


def test_two_reads_at_once_are_ten_milliseconds_apart(
    zone: Zone, tmp_path: Path, clock: Clock
) -> None:
    zone("intel-rapl:0", "package-0", 0)
    rapl = Rapl(tmp_path)
    first, second = rapl.read(), rapl.read()
    assert second.time - first.time == pytest.approx(0.01)


def test_a_failed_read_loses_no_energy(zone: Zone, tmp_path: Path, clock: Clock) -> None:
    file = zone("intel-rapl:0", "package-0", 0)
    zone("intel-rapl:1", "package-1", 0)
    rapl = Rapl(tmp_path)
    clock.now += 0.5
    zone("intel-rapl:1", "package-1", 1_000_000)
    file.write_text("rubbish\n")
    with pytest.raises(SensorFailed, match="rubbish"):
        rapl.read()
    clock.now += 0.5
    zone("intel-rapl:0", "package-0", 3_000_000)
    reading = rapl.read()
    assert (reading.total, reading.joules) == pytest.approx((4.0, 4.0))


def test_a_package_that_vanishes_is_absent(zone: Zone, tmp_path: Path) -> None:
    file = zone("intel-rapl:0", "package-0", 0)
    rapl = Rapl(tmp_path)
    file.unlink()
    with pytest.raises(SensorAbsent, match="energy_uj"):
        rapl.read()


def test_without_packages_there_is_no_rapl(zone: Zone, tmp_path: Path) -> None:
    zone("intel-rapl:0", "psys", 0)
    with pytest.raises(SensorAbsent, match="no processor package"):
        Rapl(tmp_path)


def test_counters_that_are_roots_say_what_to_do(
    zone: Zone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = zone("intel-rapl:0", "package-0", 0)
    if os.geteuid() == 0:  # who may read everything: EACCES is injected where files are opened
        opened = os.open

        def refuse(path: Path, flags: int) -> int:
            if path == file:
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path, flags)

        monkeypatch.setattr("power.sources.sysfs.os.open", refuse)
    else:
        file.chmod(0)
    with pytest.raises(SensorDenied, match="energy_uj") as failure:
        Rapl(tmp_path)
    assert "chmod a+r" in str(failure.value.remedy)


def test_packages_of_one_name_are_told_apart(zone: Zone, tmp_path: Path, clock: Clock) -> None:
    zone("intel-rapl:0", "package-0", 0)
    zone("intel-rapl:1", "package-0", 0)
    source = Rapl(tmp_path)
    clock.now += 1.0
    zone("intel-rapl:0", "package-0", 3_000_000)
    zone("intel-rapl:1", "package-0", 4_000_000)
    reading = source.read()
    assert reading.rails == pytest.approx(
        {"package-0@intel-rapl:0": 3.0, "package-0@intel-rapl:1": 4.0}
    )
    assert reading.total == pytest.approx(7.0)
