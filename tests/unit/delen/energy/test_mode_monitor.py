from __future__ import annotations

from pathlib import Path

import pytest

from delen.core.device_status import ZoneStatus
from delen.energy.mode_monitor import ModeMonitor
from tests.board import Board
from tests.nvpmodel import ModeTree


@pytest.fixture
def modes(tmp_path: Path) -> ModeTree:
    return ModeTree(tmp_path, mode=1)


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


def test_what_stays_is_not_told(modes: ModeTree) -> None:
    watch = ModeMonitor(modes.root)
    assert watch.look() == (None, None)
    assert (watch.status.id, watch.status.name, watch.status.jetson_clocks) == (
        1,
        "MODE_15W",
        False,
    )


def test_another_mode_is_told_once(modes: ModeTree) -> None:
    watch = ModeMonitor(modes.root)
    modes.set(2)
    changed, throttled = watch.look()
    assert changed is not None
    assert changed.startswith("the power mode changed from 1-MODE_15W")
    assert "to 2-MODE_7W" in changed
    assert throttled is None
    assert watch.look() == (None, None)


def test_jetson_clocks_are_another_mode(modes: ModeTree) -> None:
    watch = ModeMonitor(modes.root)
    modes.pin()
    changed, _ = watch.look()
    assert changed is not None
    assert changed.endswith("with jetson_clocks")
    assert watch.status.jetson_clocks


def test_throttling_is_told_when_it_begins_and_ends(modes: ModeTree) -> None:
    put(modes.root, "sys/class/thermal/cooling_device0/type", "cpufreq-cpu0")
    put(modes.root, "sys/class/thermal/cooling_device0/cur_state", "0")
    watch = ModeMonitor(modes.root)
    put(modes.root, "sys/class/thermal/cooling_device0/cur_state", "3")
    assert watch.look() == (None, "cpufreq-cpu0 slows the device")
    assert watch.status.throttling == ("cpufreq-cpu0 slows the device",)
    put(modes.root, "sys/class/thermal/cooling_device0/cur_state", "0")
    assert watch.look() == (None, "nothing throttles the device any more")
    assert watch.status.throttling == ()


def test_the_headroom_follows_the_temperature(modes: ModeTree) -> None:
    zone = "sys/class/thermal/thermal_zone0"
    put(modes.root, f"{zone}/type", "gpu-thermal")
    put(modes.root, f"{zone}/temp", "60000")
    put(modes.root, f"{zone}/trip_point_0_type", "passive")
    put(modes.root, f"{zone}/trip_point_0_temp", "95000")
    watch = ModeMonitor(modes.root)
    assert watch.zones.headroom == pytest.approx(35)
    put(modes.root, f"{zone}/temp", "92000")
    watch.look()
    assert watch.zones.headroom == pytest.approx(3)
    assert watch.device.zones == (ZoneStatus("gpu-thermal", 92.0),)


def test_load_and_clocks_are_looked_at_again(tmp_path: Path) -> None:
    board = Board(tmp_path)
    watch = ModeMonitor(tmp_path)
    board.put(f"{board.gpu}/device/load", 423)
    watch.look()
    assert watch.device.gpu is not None
    assert watch.device.gpu.load == 0.423


def test_a_machine_without_modes_has_the_default_one(tmp_path: Path) -> None:
    watch = ModeMonitor(tmp_path)
    assert watch.look() == (None, None)
    assert (watch.mode.key, watch.zones.headroom) == ("default", None)
    status = watch.status
    assert (status.id, status.name, status.jetson_clocks) == (None, "default", None)
