"""Thermal zones that are watched: one that can no longer be read is not taken for cool."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from delen.core.device_status import ZoneStatus
from delen.errors import PowerError
from power.board.names import distinct
from power.modes.thermal import EngineOff, Zone, headroom, read_zone, zone_folders
from power.sources.sysfs import read_text

log = logging.getLogger("delen.power")

_TRUSTED = 10.0
"""Seconds for which a temperature counts after it was read."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A zone when it was last read, at ``time`` (seconds, monotonic)."""

    zone: Zone
    time: float


class ZoneMonitor:
    """The thermal zones of the device under ``root``.

    A zone that can no longer be read is logged once. It counts as its last value for ten seconds,
    then its temperature is unknown. One whose engine is switched off has none, and is not shown.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._problems: dict[str, str] = {}
        self.zones: tuple[ZoneStatus, ...] = ()
        self.headroom: float | None = None
        """Degrees Celsius below the nearest trip point that limits; None where there is none. Zones
        whose temperature is unknown are no cooler here than when they were last read."""
        self.unread: tuple[str, ...] = ()
        """Zones with such a trip point whose temperature is unknown."""
        self.look()

    def look(self) -> None:
        """Read the zones again."""
        now = self._clock()
        problems = dict.fromkeys(self._seen, "it is gone")
        for name, folder in _named(self._root):
            try:
                self._seen[name] = _Seen(read_zone(folder), now)
                problems.pop(name, None)
            except EngineOff:
                self._seen.pop(name, None)
                problems.pop(name, None)
            except PowerError as error:
                problems[name] = str(error)
        self._report(problems)
        self._problems = problems
        names = dict.fromkeys([*self._seen, *problems])
        self.zones = tuple(
            ZoneStatus(name, self._celsius(name, now), problems.get(name)) for name in names
        )
        nearest = headroom(seen.zone for seen in self._seen.values())
        self.headroom = None if nearest is None else nearest.celsius
        self.unread = tuple(
            name
            for name, seen in self._seen.items()
            if self._celsius(name, now) is None and headroom([seen.zone]) is not None
        )

    def _celsius(self, name: str, now: float) -> float | None:
        seen = self._seen.get(name)
        return None if seen is None or now - seen.time > _TRUSTED else seen.zone.celsius

    def _report(self, problems: dict[str, str]) -> None:
        for name, problem in problems.items():
            if name in self._seen and name not in self._problems:
                log.warning("the thermal zone %s can no longer be read: %s", name, problem)
        for name in self._problems:
            if name in self._seen and name not in problems:
                log.info("the thermal zone %s can be read again", name)


def _named(root: Path) -> list[tuple[str, Path]]:
    """The zones with different names, those that have one."""
    found = []
    for folder in zone_folders(root):
        try:
            found.append((read_text(folder / "type"), folder))
        except PowerError:
            continue
    names = distinct([name for name, _ in found], [folder.name for _, folder in found])
    return [(name, folder) for name, (_, folder) in zip(names, found, strict=True)]
