from __future__ import annotations

from pathlib import Path

import pytest

from delen.core.device_status import CoreStatus, CpuStatus, DeviceStatus, FanStatus, UnitStatus
from power.board.telemetry import Telemetry
from tests.board import Board
from tests.other_user import as_other_user, open_folder


def put(root: Path, path: str, text: object) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{text}\n")


def test_load_clocks_and_fan_are_as_the_kernel_has_them(tmp_path: Path) -> None:
    board = Board(tmp_path)
    telemetry = Telemetry(tmp_path)
    board.put(f"{board.gpu}/device/load", 423)
    board.put(f"{board.gpu}/cur_freq", 612_000_000)
    board.put(board.emc_activity, 533_250)  # kHz of 2133 MHz
    board.put(board.fan, 51)
    board.put(board.tach, 1800)
    board.clock(4, 1_984_000)
    board.run({0: 1.0, 5: 0.2})
    device = telemetry.look()
    assert device.gpu == UnitStatus(0.423, 612e6)
    assert device.emc == UnitStatus(0.25, 2133e6)
    assert device.fans == (FanStatus("pwmfan", 0.2, 1800),)
    assert device.cpu is not None
    assert device.cpu.load == pytest.approx(1.2 / 8)
    assert device.cpu.clock == 1984e6
    assert [core.load for core in device.cpu.cores] == [1.0, 0, 0, 0, 0, 0.2, 0, 0]
    assert [core.clock for core in device.cpu.cores[3:5]] == [729.6e6, 1984e6]


def test_loads_are_of_the_time_since_the_last_look(tmp_path: Path) -> None:
    board = Board(tmp_path)
    telemetry = Telemetry(tmp_path)
    board.run({0: 1.0})
    telemetry.look()
    board.run({0: 0.5})
    cpu = telemetry.look().cpu
    assert cpu is not None
    assert cpu.cores[0].load == 0.5
    same = telemetry.look().cpu
    assert same is not None
    assert same.load is None


def test_a_core_that_is_off_is_not_shown(tmp_path: Path) -> None:
    board = Board(tmp_path)
    telemetry = Telemetry(tmp_path)
    board.run({0: 0.5}, online=2)
    cpu = telemetry.look().cpu
    assert cpu is not None
    assert cpu.cores == (CoreStatus(0, 0.5, 729.6e6), CoreStatus(1, 0.0, 729.6e6))


def test_a_machine_that_shows_nothing_has_nothing(tmp_path: Path) -> None:
    assert Telemetry(tmp_path).look() == DeviceStatus()


@pytest.mark.parametrize(
    ("path", "text", "unknown"),
    [
        (f"{Board.gpu}/device/load", "N/A", "gpu.load"),
        (f"{Board.gpu}/device/load", "-5", "gpu.load"),
        (f"{Board.gpu}/device/load", "65535", "gpu.load"),
        (f"{Board.gpu}/cur_freq", "", "gpu.clock"),
        (Board.emc_clock, "fast", "emc.clock emc.load"),
        (Board.emc_clock, "0", "emc.load"),
        (Board.emc_activity, "9999999", "emc.load"),
        (Board.fan, "300", "fan.speed"),
        (Board.tach, "-1", "fan.rpm"),
        ("proc/stat", "cpu x", "cpu.load"),
    ],
)
def test_what_is_not_a_reading_is_unknown_and_nothing_else_is(
    tmp_path: Path, path: str, text: str, unknown: str
) -> None:
    board = Board(tmp_path)
    telemetry = Telemetry(tmp_path)
    board.run({})
    board.put(path, text)
    assert _unknown(telemetry.look()) == set(unknown.split())


@pytest.mark.parametrize(
    ("path", "unknown"),
    [
        (f"{Board.gpu}/device/load", "gpu.load"),
        (Board.emc_activity, "emc.load"),
        (Board.tach, "fan.rpm"),
        ("proc/stat", "cpu.load"),
    ],
)
def test_a_file_that_fails_or_goes_drops_only_itself(
    tmp_path: Path, path: str, unknown: str
) -> None:
    board = Board(tmp_path)
    telemetry = Telemetry(tmp_path)
    board.run({})
    text = (tmp_path / path).read_text()
    board.fail(path)
    assert _unknown(telemetry.look()) == {unknown}
    (tmp_path / path).unlink()
    assert _unknown(telemetry.look()) - {"cpu.load"} == {unknown} - {"cpu.load"}
    board.put(path, text)
    assert _unknown(telemetry.look()) <= {"cpu.load"}


def _unknown(device: DeviceStatus) -> set[str]:
    parts = {"gpu": device.gpu, "emc": device.emc, "cpu": device.cpu, "fan": device.fans[0]}
    fields = {"fan": ("speed", "rpm")}
    return {
        f"{name}.{field}"
        for name, part in parts.items()
        for field in fields.get(name, ("load", "clock"))
        if getattr(part, field, None) is None
    }


@pytest.mark.parametrize(
    ("clock", "load"),
    [
        ("sys/class/devfreq/57000000.gpu", "sys/devices/gpu.0/load"),
        ("sys/class/devfreq/17000000.gp10b", "sys/class/devfreq/17000000.gp10b/device/load"),
        ("sys/class/devfreq/17000000.gv11b", "sys/devices/platform/gpu.0/load"),
        ("sys/class/devfreq/gpu-gpc-0", None),
    ],
)
def test_the_gpu_is_found_on_every_family(tmp_path: Path, clock: str, load: str | None) -> None:
    put(tmp_path, f"{clock}/cur_freq", 510_000_000)
    if load is not None:
        put(tmp_path, load, 100)
    assert Telemetry(tmp_path).look().gpu == UnitStatus(None if load is None else 0.1, 510e6)


@pytest.mark.parametrize(
    "clock",
    [
        "sys/class/devfreq/bwmgr/cur_freq",
        "sys/kernel/debug/clk/override.emc/clk_rate",
        "sys/kernel/debug/clk/emc/clk_rate",
    ],
)
def test_the_memorys_clock_is_found_on_every_family(tmp_path: Path, clock: str) -> None:
    put(tmp_path, clock, 1_600_000_000)
    put(tmp_path, "sys/kernel/actmon_avg_activity/mc_all", 160_000)
    assert Telemetry(tmp_path).look().emc == UnitStatus(0.1, 1600e6)


def test_the_fan_of_jetpack_4_is_found(tmp_path: Path) -> None:
    put(tmp_path, "sys/devices/pwm-fan/target_pwm", 255)
    put(tmp_path, "sys/devices/pwm-fan/rpm_measured", 4000)
    assert Telemetry(tmp_path).look().fans == (FanStatus("pwm-fan", 1.0, 4000),)


def test_fans_that_are_named_alike_are_told_apart(tmp_path: Path) -> None:
    for chip in (3, 4):
        put(tmp_path, f"sys/class/hwmon/hwmon{chip}/name", "nct6775")
        for fan in (1, 2):
            put(tmp_path, f"sys/class/hwmon/hwmon{chip}/pwm{fan}", 51 * fan)
            put(tmp_path, f"sys/class/hwmon/hwmon{chip}/fan{fan}_input", 500 * fan)
    put(tmp_path, "sys/class/hwmon/hwmon0/name", "ina3221")
    put(tmp_path, "sys/class/hwmon/hwmon0/in1_input", 5000)
    fans = Telemetry(tmp_path).look().fans
    assert [(fan.speed, fan.rpm) for fan in fans] == [(0.2, 500), (0.4, 1000)] * 2
    assert len({fan.name for fan in fans}) == 4


def test_a_device_that_appears_later_is_found(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path)
    assert telemetry.look().gpu is None
    put(tmp_path, "sys/class/devfreq/17000000.gpu/cur_freq", 510_000_000)
    found = [telemetry.look().gpu for _ in range(60)]
    assert found[-1] == UnitStatus(None, 510e6)


def test_only_clocks_are_known_where_the_times_cannot_be_read(tmp_path: Path) -> None:
    board = Board(tmp_path)
    (tmp_path / "proc/stat").unlink()
    board.clock(0, 1_000_000)
    cpu = Telemetry(tmp_path).look().cpu
    assert cpu is not None
    assert (cpu.load, cpu.clock) == (None, 1e9)
    assert cpu == CpuStatus(None, 1e9, cpu.cores)
    assert len(cpu.cores) == 8


def test_what_is_roots_to_read_is_unknown_to_others_and_the_rest_is_not() -> None:
    with open_folder() as root:
        Board(root)
        (root / "sys/kernel/debug").chmod(0o700)
        with as_other_user():
            device = Telemetry(root).look()
        assert device.emc is None
        assert device.gpu == UnitStatus(0.0, 306e6)
