from __future__ import annotations

from pathlib import Path

import pytest

from delen.core.device_status import ZoneStatus
from power.modes.zone_monitor import ZoneMonitor
from tests.board import Board

ZONE = "sys/class/thermal/thermal_zone{}"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """Its GPU is 4 degrees below its trip point."""
    board = Board(tmp_path)
    board.zone(1, "gpu-thermal", 95.0)
    return board


def shown(monitor: ZoneMonitor, name: str = "gpu-thermal") -> ZoneStatus | None:
    return next((zone for zone in monitor.zones if zone.name == name), None)


@pytest.mark.parametrize("how", ["fails", "goes", "says N/A"])
def test_a_zone_that_can_no_longer_be_read_counts_a_while_then_is_unknown_and_never_cool(
    board: Board, clock: Clock, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    monitor = ZoneMonitor(board.root, clock)
    assert (monitor.headroom, monitor.unread) == (4.0, ())
    path = f"{ZONE.format(1)}/temp"
    if how == "fails":
        board.fail(path)
    elif how == "goes":
        (board.root / path).unlink()
    else:
        board.put(path, "N/A")
    clock.now += 9.0
    monitor.look()
    zone = shown(monitor)
    assert zone is not None
    assert (zone.celsius, monitor.headroom, monitor.unread) == (95.0, 4.0, ())
    assert zone.problem is not None
    assert "temp" in zone.problem
    clock.now += 2.0
    for _ in range(3):
        monitor.look()
    zone = shown(monitor)
    assert zone is not None
    assert (zone.celsius, monitor.headroom, monitor.unread) == (None, 4.0, ("gpu-thermal",))
    assert caplog.text.count("gpu-thermal can no longer be read") == 1
    board.zone(1, "gpu-thermal", 60.0)
    monitor.look()
    assert shown(monitor) == ZoneStatus("gpu-thermal", 60.0)
    assert (monitor.headroom, monitor.unread) == (39.0, ())


def test_a_zone_that_is_gone_with_its_folder_is_unknown_too(board: Board, clock: Clock) -> None:
    monitor = ZoneMonitor(board.root, clock)
    (board.root / ZONE.format(1)).rename(board.root / "elsewhere")
    clock.now += 11.0
    monitor.look()
    assert shown(monitor) == ZoneStatus("gpu-thermal", None, "it is gone")
    assert (monitor.headroom, monitor.unread) == (4.0, ("gpu-thermal",))
    (board.root / "elsewhere").rename(board.root / ZONE.format(7))
    monitor.look()
    assert shown(monitor) == ZoneStatus("gpu-thermal", 95.0), "also where its number is another one"


def test_a_zone_whose_engine_is_switched_off_is_left_out(board: Board, clock: Clock) -> None:
    monitor = ZoneMonitor(board.root, clock)
    board.put(f"{ZONE.format(1)}/temp", -256000)
    monitor.look()
    assert shown(monitor) is None
    clock.now += 11.0
    monitor.look()
    assert (monitor.headroom, monitor.unread) == (54.0, ())


def test_a_zone_that_was_never_read_is_said_and_limits_nothing(
    board: Board, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    board.fail(f"{ZONE.format(1)}/temp")
    monitor = ZoneMonitor(board.root, clock)
    clock.now += 11.0
    monitor.look()
    zone = shown(monitor)
    assert zone is not None
    assert zone.celsius is None
    assert zone.problem is not None
    assert (monitor.headroom, monitor.unread) == (54.0, ())
    assert caplog.text == ""


def test_a_zone_without_a_limiting_trip_leaves_the_headroom_known(
    board: Board, clock: Clock
) -> None:
    board.put("sys/class/thermal/thermal_zone9/type", "case")
    board.put("sys/class/thermal/thermal_zone9/temp", 30_000)
    monitor = ZoneMonitor(board.root, clock)
    board.fail("sys/class/thermal/thermal_zone9/temp")
    clock.now += 11.0
    monitor.look()
    assert shown(monitor, "case") is not None
    assert monitor.unread == ()


def test_zones_that_are_named_alike_are_told_apart(board: Board, clock: Clock) -> None:
    board.zone(8, "acpitz", 30.0)
    board.zone(9, "acpitz", 31.0)
    names = [zone.name for zone in ZoneMonitor(board.root, clock).zones]
    assert names[-2:] == ["acpitz@thermal_zone8", "acpitz@thermal_zone9"]
