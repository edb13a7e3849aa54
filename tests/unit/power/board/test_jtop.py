from __future__ import annotations

from math import nan
from typing import Any

import pytest

from delen.core.device_status import DeviceStatus, UnitStatus, ZoneStatus
from power.board.jtop import completed, device_of

STATS: dict[str, Any] = {
    "gpu": {"ga10b": {"status": {"load": 42.0}, "freq": {"cur": 612000}}},
    "mem": {"EMC": {"cur": 2133000, "val": 0}},
}


def test_a_servers_figures_become_a_device() -> None:
    assert device_of(STATS) == DeviceStatus(
        gpu=UnitStatus(0.42, 612e6), emc=UnitStatus(None, 2133e6)
    )


@pytest.mark.parametrize("load", [0.0, 30.0])
def test_a_zero_in_place_of_an_unknown_load_is_not_believed(load: float) -> None:
    gpu = {"status": {"load": load}, "freq": {"cur": 0}, "power_control": "nvml"}
    assert device_of({"gpu": {"Thor": gpu}}).gpu == (UnitStatus(0.3, None) if load else None)


@pytest.mark.parametrize(
    "stats",
    [
        {},
        {"gpu": [], "mem": {"EMC": {}}},
        {"gpu": {"a": {"status": {"load": nan}, "freq": {"cur": -1}}}, "mem": None},
        {"gpu": {"a": None, "b": {"status": {"load": True}}}, "mem": {"EMC": {"cur": 0}}},
    ],
)
def test_what_is_not_as_expected_is_unknown(stats: dict[str, Any]) -> None:
    assert device_of(stats) == DeviceStatus()


def test_files_come_first_and_the_server_fills_in() -> None:
    files = DeviceStatus(gpu=UnitStatus(None, 510e6), zones=(ZoneStatus("tj", 40.0),))
    told = completed(files, device_of(STATS))
    assert told.gpu == UnitStatus(0.42, 510e6)
    assert told.emc == UnitStatus(None, 2133e6)
    assert told.zones == files.zones
    assert completed(files, DeviceStatus()) == files
