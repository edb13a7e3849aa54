"""RAPL: the energy counters of x86 processor packages, as Linux's powercap shows them."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from delen.errors import SensorAbsent, SensorDenied, SensorFailed
from power.sources.source import PowerReading
from power.sources.sysfs import read_number, read_text

NAME = "rapl"
SCOPE = "package"
FOLDER = "sys/class/powercap"
_PACKAGE = re.compile(r"package-\d+(-die-\d+)?")
_SHORTEST = 0.01
"""Seconds over which watts are averaged. The counters move every millisecond, in steps."""
_MOST_WATTS = 5000.0
"""No package draws that: a step beyond it is a counter that was reset (by suspending)."""
_REMEDY = (
    "only root may read the counters, because they leak what others compute (CVE-2020-8694). If "
    "this is acceptable: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj, by a udev rule"
)


@dataclass(frozen=True, slots=True)
class _Counter:
    """One package's counter, which wraps to 0 after ``span`` microjoules."""

    rail: str
    file: Path
    span: float

    def read(self) -> float:
        """Microjoules, since whenever."""
        try:
            return read_number(self.file)
        except SensorDenied as error:
            raise SensorDenied(str(error), _REMEDY) from error

    def joules(self, earlier: float, later: float) -> float:
        step = later - earlier
        return (step if step >= 0 else step + self.span) / 1e6


class Rapl:
    """Watts and joules of the processor's packages, one rail each, and their sum.

    Only the packages ``intel-rapl:N`` count: cores and graphics are parts of them, psys is around
    them, and ``intel-rapl-mmio`` shows the same again. Memory (``dram``) draws its power beside the
    package on servers, and is not counted. Packages of one name have their zone in it. Watts are
    those since the reading before, and at least 10 ms: an earlier read waits. A counter that
    wrapped more than once between two readings (minutes) looks like one that wrapped once.

    The constructor raises SensorAbsent without packages, SensorDenied where they are root's.
    """

    name = NAME
    kind: Literal["measured", "estimated"] = "measured"
    scope = SCOPE
    interval = _SHORTEST

    def __init__(self, root: Path) -> None:
        self._counters = _find_counters(root)
        self._last = [counter.read() for counter in self._counters]
        self._last_time = time.monotonic()
        self._joules = 0.0

    def read(self) -> PowerReading:
        time.sleep(max(0.0, self._last_time + _SHORTEST - time.monotonic()))
        counts = [counter.read() for counter in self._counters]
        now = time.monotonic()
        elapsed, self._last_time = now - self._last_time, now
        earlier, self._last = self._last, counts
        rails = {}
        for counter, before, after in zip(self._counters, earlier, counts, strict=True):
            joules = counter.joules(before, after)
            if joules > _MOST_WATTS * elapsed:
                raise SensorFailed(f"{counter.file} jumped by {joules:.0f} J in {elapsed:.2g} s")
            rails[counter.rail] = joules / elapsed
        total = sum(rails.values())
        self._joules += total * elapsed
        return PowerReading(now, rails, total, self._joules)

    def close(self) -> None:
        """Nothing is held open."""


def _find_counters(root: Path) -> list[_Counter]:
    folder = root / FOLDER
    counters = []
    for zone in sorted(folder.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:
            continue
        rail = read_text(zone / "name")
        if _PACKAGE.fullmatch(rail):
            span = read_number(zone / "max_energy_range_uj")
            counters.append(_Counter(rail, zone / "energy_uj", span))
    counters = [
        replace(counter, rail=f"{counter.rail}@{counter.file.parent.name}")
        if [other.rail for other in counters].count(counter.rail) > 1
        else counter
        for counter in counters
    ]
    if not counters:
        raise SensorAbsent(
            f"no processor package counts its energy in {folder}",
            "RAPL needs an Intel or AMD processor (not virtual) and the module intel_rapl_msr",
        )
    return counters
