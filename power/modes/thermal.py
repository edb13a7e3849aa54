"""Temperatures, the device's own trip points, and how far it is from the nearest."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from delen.errors import PowerError, SensorFailed
from power.sources.sysfs import read_number, read_text

LIMITING = ("passive", "hot", "critical")

_ZONES = "sys/class/thermal/thermal_zone*"
_COOLERS = "sys/class/thermal/cooling_device*"
_MOST = 200.0  # degrees Celsius that a zone may read
_OFF = -55.0
_OFF_ERRORS = (errno.EAGAIN, errno.EINVAL)
_SLOWS = re.compile(
    r".*-throttle-alert|(thermal-)?(cpufreq|devfreq)-.*|.*-balanced|tegra-heavy|"
    r"Processor|intel_powerclamp",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Trip:
    """A trip point: ``active`` starts a fan, ``passive`` slows the device down, ``hot`` slows it
    hard, ``critical`` shuts it off."""

    kind: str
    celsius: float


@dataclass(frozen=True, slots=True)
class Zone:
    name: str
    celsius: float
    trips: tuple[Trip, ...] = ()


@dataclass(frozen=True, slots=True)
class Headroom:
    """Degrees from the zone nearest to one of its limiting trip points up to that ``trip``,
    negative beyond it."""

    zone: str
    celsius: float
    trip: Trip


class EngineOff(PowerError):
    """A zone is of an engine that is switched off, and so has no temperature."""


def read_zones(root: Path) -> tuple[Zone, ...]:
    """The thermal zones under ``root`` that can be read now."""
    zones = []
    for folder in zone_folders(root):
        try:
            zones.append(read_zone(folder))
        except PowerError:
            continue
    return tuple(zones)


def zone_folders(root: Path) -> list[Path]:
    return _numbered(root.glob(_ZONES))


def read_zone(folder: Path) -> Zone:
    """The zone in ``folder``. Raises EngineOff where its engine is off (EAGAIN, EINVAL, or a
    temperature far below zero), and another PowerError where it cannot be read."""
    name = read_text(folder / "type")
    try:
        celsius = read_number(folder / "temp") / 1000
    except SensorFailed as error:
        if getattr(error.__cause__, "errno", None) in _OFF_ERRORS:
            raise EngineOff(f"{name} is off") from error
        raise
    if celsius <= _OFF:
        raise EngineOff(f"{name} is off")
    if celsius > _MOST:
        raise SensorFailed(f"{name} reads {celsius:g} °C, at which no device runs")
    return Zone(name, celsius, tuple(_trips(folder)))


def headroom(zones: Iterable[Zone]) -> Headroom | None:
    """The least distance to a trip point that slows the device or shuts it off; None without.

    Fans do not count, nor does the power chip (``PMIC-Die``), which knows three temperatures only.
    """
    distances = [
        Headroom(zone.name, trip.celsius - zone.celsius, trip)
        for zone in zones
        if not zone.name.lower().startswith("pmic")
        for trip in zone.trips
        if trip.kind in LIMITING
    ]
    return min(distances, key=lambda distance: distance.celsius, default=None)


def slowed_by(root: Path) -> tuple[str, ...]:
    """The cooling devices under ``root`` that slow processors or memory down right now."""
    slowing = []
    for folder in _numbered(root.glob(_COOLERS)):
        try:
            name = read_text(folder / "type")
            if _SLOWS.fullmatch(name) and read_number(folder / "cur_state") > 0:
                slowing.append(name)
        except PowerError:
            continue
    return tuple(slowing)


def _trips(folder: Path) -> Iterator[Trip]:
    harmless = _harmless_trips(folder)
    for path in sorted(folder.glob("trip_point_*_type")):
        number = path.name.split("_")[2]
        try:
            kind = read_text(path)
            celsius = read_number(folder / f"trip_point_{number}_temp") / 1000
        except PowerError:
            continue
        if celsius > 0 and not (kind == "passive" and number in harmless):
            yield Trip(kind, celsius)


def _harmless_trips(folder: Path) -> set[str]:
    """The trip points, by number, to which nothing that slows the device is bound, though
    something is: fans, and the alert that the case has become too hot to touch."""
    bound: dict[str, list[str]] = {}
    for path in folder.glob("cdev*_trip_point"):
        try:
            name = read_text(folder / path.name.removesuffix("_trip_point") / "type")
            bound.setdefault(read_text(path), []).append(name)
        except PowerError:
            continue
    return {
        number
        for number, names in bound.items()
        if not any(_SLOWS.fullmatch(name) for name in names)
    }


def _numbered(folders: Iterable[Path]) -> list[Path]:
    return sorted(folders, key=lambda folder: int(re.sub(r"\D", "", folder.name) or 0))
