"""The load of the processor's cores, from the times that the kernel counts, and their clocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from delen.core.device_status import CoreStatus, CpuStatus
from delen.errors import PowerError
from power.modes.nvpmodel import number_or_none
from power.sources.sysfs import read_text

_STAT = "proc/stat"
_POLICIES = "sys/devices/system/cpu/cpufreq/policy*"
_IDLE, _IOWAIT, _TIMES = 3, 4, 8
_ALL = "cpu"


class _Times(NamedTuple):
    """Ticks since the start of the machine."""

    busy: int
    total: int


class Processors:
    """The cores of the machine under ``root``."""

    def __init__(self, root: Path) -> None:
        self._stat = root / _STAT
        self._before = self._times()
        self._policies: dict[Path, tuple[int, ...]] = {}
        self._root = root
        self.search()

    def search(self) -> None:
        """Find out which cores share a clock."""
        self._policies = {
            folder / "scaling_cur_freq": _cores(folder) for folder in self._root.glob(_POLICIES)
        }

    def look(self) -> CpuStatus | None:
        """Load since the last look; None where neither load nor clock can be read."""
        before, now = self._before, self._times()
        self._before = now
        loads = {name: _load(before.get(name), times) for name, times in now.items()}
        clocks = self._clocks()
        online = {int(name.removeprefix(_ALL)) for name in now if name != _ALL} or set(clocks)
        if not online and loads.get(_ALL) is None:
            return None
        shown = {core: clocks[core] for core in online if core in clocks}
        return CpuStatus(
            loads.get(_ALL),
            max(shown.values(), default=None),
            tuple(
                CoreStatus(core, loads.get(f"{_ALL}{core}"), shown.get(core))
                for core in sorted(online)
            ),
        )

    def _times(self) -> dict[str, _Times]:
        try:
            lines = read_text(self._stat).splitlines()
        except PowerError:
            return {}
        rows = (line.split() for line in lines if line.startswith(_ALL))
        times = {}
        for name, *fields in rows:
            try:
                ticks = [int(field) for field in fields[:_TIMES]]
                idle = ticks[_IDLE] + ticks[_IOWAIT]
                int(name.removeprefix(_ALL) or 0)
            except (ValueError, IndexError):
                continue
            times[name] = _Times(sum(ticks) - idle, sum(ticks))
        return times

    def _clocks(self) -> Mapping[int, float]:
        clocks = {}
        for path, cores in self._policies.items():
            kilohertz = number_or_none(path)
            if kilohertz is not None and kilohertz > 0:
                clocks.update(dict.fromkeys(cores, 1e3 * kilohertz))
        return clocks


def _load(before: _Times | None, now: _Times) -> float | None:
    if before is None or now.total <= before.total:
        return None
    return min(1.0, max(0.0, (now.busy - before.busy) / (now.total - before.total)))


def _cores(policy: Path) -> tuple[int, ...]:
    try:
        return tuple(int(core) for core in read_text(policy / "related_cpus").split())
    except (PowerError, ValueError):
        return ()
