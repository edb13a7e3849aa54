"""Which power mode and clocks the device runs at, and whether something slows it down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from delen.errors import PowerError
from power.modes.nvpmodel import Conf, mode_in_force, number_or_none, read_conf
from power.modes.thermal import slowed_by
from power.sources.sysfs import read_text

UNKNOWN_MODE = "default"

_GPU = re.compile(r"gpu-gpc-\d+|[0-9a-f]+\.(gpu|gp10b|gv11b|ga10b|gb10b)")
_POLICIES = "sys/devices/system/cpu/cpufreq/policy*"
_DEVFREQ = "sys/class/devfreq/*"
_HWMON = ("sys/class/hwmon/hwmon*", "sys/bus/i2c/devices/*/hwmon/hwmon*")
_ALARM = re.compile(r"curr(\d+)_(max|crit)_alarm")
_EVENTS = re.compile(r"(oc\d+)_event_cnt")
_BUCKET = 25  # MHz; the steps of a Jetson's clocks are two to four times as wide


@dataclass(frozen=True, slots=True)
class PowerMode:
    """nvpmodel's mode (``id`` None where there is none), the clock limits of CPU and GPU in MHz,
    and whether jetson_clocks holds every clock at its limit."""

    id: int | None
    name: str
    clocks: str = ""
    jetson_clocks: bool = False

    @property
    def key(self) -> str:
        """What figures measured in this mode are filed under."""
        mode = self.name if self.id is None else f"{self.id}-{self.name}"
        return f"{mode}@{self.clocks}" if self.clocks else mode


@dataclass(frozen=True, slots=True)
class Throttling:
    """What slows the device ``now``, a sentence each, and how often over-current or low voltage
    has done so since boot: (counter, count)."""

    now: tuple[str, ...] = ()
    events: tuple[tuple[str, int], ...] = ()

    def since(self, earlier: Throttling) -> tuple[str, ...]:
        """What has slowed the device since ``earlier``, and what does now."""
        before = dict(earlier.events)
        grown = (
            f"{name} (over-current or low voltage) was counted {count - before[name]} times"
            for name, count in self.events
            if count > before.get(name, count)
        )
        return (*self.now, *grown)


def read_mode(root: Path) -> PowerMode:
    """The mode of the device whose files are under ``root``.

    A machine with neither nvpmodel nor a Jetson's GPU clock is in mode ``default``, whatever its
    processor's clocks are.
    """
    conf = read_conf(root)
    gpu = _ranges(gpu_folders(root), "", 1e-6)
    if conf is None and not gpu:
        return PowerMode(None, UNKNOWN_MODE)
    cpu = _ranges(root.glob(_POLICIES), "scaling_", 1e-3)
    clocks = "+".join(_span(name, found) for name, found in (("cpu", cpu), ("gpu", gpu)) if found)
    mode, name = _mode(root, conf)
    held = bool(gpu or cpu) and all(least == most for least, most in (*gpu, *cpu))
    model = None if conf is None else conf.model(mode)
    return PowerMode(mode, name, clocks, held and not (model is not None and model.pins_clocks))


def gpu_folders(root: Path) -> list[Path]:
    """The folders of the clocks of a Jetson's GPU."""
    return [path for path in root.glob(_DEVFREQ) if _GPU.fullmatch(path.name)]


def throttling(root: Path) -> Throttling:
    """What slows the device now or has: its cooling devices, over-current alarms and counters."""
    now = [f"{name} slows the device" for name in slowed_by(root)]
    events: dict[str, int] = {}
    for monitor in _monitors(root):
        for path in sorted(monitor.glob("*_*")):
            alarm, counter = _ALARM.fullmatch(path.name), _EVENTS.fullmatch(path.name)
            if counter:
                events[counter.group(1)] = int(number_or_none(path) or 0)
            elif alarm and number_or_none(path):
                channel, limit = alarm.groups()
                level = "critical" if limit == "crit" else "average"
                rail = _label(monitor / f"in{channel}_label") or f"{monitor.name} channel {channel}"
                now.append(f"{rail} is over its {level} current limit")
    return Throttling(tuple(now), tuple(sorted(events.items())))


def steady_key(root: Path) -> str:
    """Equal at two moments only if mode, clocks and throttling were the same at both and no
    over-current or low voltage was counted between them."""
    slowed = throttling(root)
    counted = [f"{name}={count}" for name, count in slowed.events]
    return "; ".join([read_mode(root).key, *slowed.now, *counted])


def _mode(root: Path, conf: Conf | None) -> tuple[int | None, str]:
    if conf is None:
        return None, UNKNOWN_MODE
    mode = mode_in_force(root, conf)
    model = conf.model(mode)
    return mode, "unknown" if model is None else model.name


def _ranges(folders: Iterable[Path], prefix: str, scale: float) -> list[tuple[float, float]]:
    """The least and highest clock of each folder, in MHz."""
    found = []
    for folder in folders:
        least = number_or_none(folder / f"{prefix}min_freq")
        most = number_or_none(folder / f"{prefix}max_freq")
        if least is not None and most is not None:
            found.append((least * scale, most * scale))
    return found


def _span(name: str, found: list[tuple[float, float]]) -> str:
    least, most = min(least for least, _ in found), max(most for _, most in found)
    return f"{name}{_bucket(least)}-{_bucket(most)}"


def _bucket(megahertz: float) -> int:
    return round(megahertz / _BUCKET) * _BUCKET


def _monitors(root: Path) -> Iterator[Path]:
    seen = set()
    for pattern in _HWMON:
        for path in sorted(root.glob(pattern)):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _label(path: Path) -> str | None:
    try:
        return read_text(path)
    except PowerError:
        return None
