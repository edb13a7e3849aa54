"""The kernel's files on a board's load, clocks and fans."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from delen.core.device_status import DeviceStatus, UnitStatus
from power.board.fans import find_fans
from power.board.processors import Processors
from power.modes.modes import gpu_folders
from power.modes.nvpmodel import number_or_none

_GPU_LOADS = ("sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load")
_EMC_CLOCKS = (
    "sys/kernel/debug/bpmp/debug/clk/emc/rate",
    "sys/class/devfreq/bwmgr/cur_freq",
    "sys/kernel/debug/clk/override.emc/clk_rate",
    "sys/kernel/debug/clk/emc/clk_rate",
)
_EMC_ACTIVITIES = ("sys/kernel/debug/cactmon/mc_all", "sys/kernel/actmon_avg_activity/mc_all")
"""In kHz. BPMP's own ``mc_all_avg_activity`` is in another unit, which nobody documents."""

_SEARCH_EVERY = 30
"""Looks. Drivers come and go, but seldom."""


class Telemetry:
    """The device under ``root``. A file that cannot be read is missing from what ``look`` returns,
    and nothing else is."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._looks = 0
        self._processors = Processors(root)
        self._search()

    def look(self) -> DeviceStatus:
        """The device now, its loads since the last look. Temperatures are left to others."""
        self._looks += 1
        if self._looks % _SEARCH_EVERY == 0:
            self._processors.search()
            self._search()
        return DeviceStatus(
            gpu=self._gpu(),
            cpu=self._processors.look(),
            emc=self._emc(),
            fans=tuple(found for fan in self._fans if (found := fan.look()) is not None),
        )

    def _search(self) -> None:
        root = self._root
        gpus = gpu_folders(root)
        loads = [
            *(folder / "device/load" for folder in gpus),
            *(root / load for load in _GPU_LOADS),
        ]
        self._gpu_loads = _existing(loads)
        self._gpu_clocks = _existing(folder / "cur_freq" for folder in gpus)
        self._emc_clocks = _existing(root / clock for clock in _EMC_CLOCKS)
        self._emc_activities = _existing(root / activity for activity in _EMC_ACTIVITIES)
        self._fans = find_fans(root)

    def _gpu(self) -> UnitStatus | None:
        per_mille = _first(self._gpu_loads)
        load = per_mille / 1000 if per_mille is not None and per_mille <= 1000 else None
        return _unit(load, max(_numbers(self._gpu_clocks), default=None))

    def _emc(self) -> UnitStatus | None:
        clock, activity = _first(self._emc_clocks), _first(self._emc_activities)
        load = 1e3 * activity / clock if clock and activity is not None else None
        return _unit(load if load is not None and load <= 1 else None, clock)


def _unit(load: float | None, clock: float | None) -> UnitStatus | None:
    return None if load is None and clock is None else UnitStatus(load, clock)


def _existing(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if os.access(path, os.F_OK)]  # others' folders hide theirs


def _numbers(paths: Iterable[Path]) -> list[float]:
    found = (number_or_none(path) for path in paths)
    return [number for number in found if number is not None and number >= 0]


def _first(paths: list[Path]) -> float | None:
    return next(iter(_numbers(paths)), None)
