"""What the device reports of itself beside its power: load, clocks, fans, temperatures.

None is unknown everywhere: what cannot be read is never a number. Loads and speeds are fractions,
clocks are in hertz.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """The GPU, or the memory controller."""

    load: float | None = None
    clock: float | None = None


@dataclass(frozen=True, slots=True)
class CoreStatus:
    """One processor core that is online, by its number."""

    core: int
    load: float | None = None
    clock: float | None = None


@dataclass(frozen=True, slots=True)
class CpuStatus:
    """All cores together, with the highest of their clocks, and each that is online."""

    load: float | None = None
    clock: float | None = None
    cores: tuple[CoreStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class FanStatus:
    """A fan: its ``speed`` as the part of full power that it is given, and its turns a minute."""

    name: str
    speed: float | None = None
    rpm: float | None = None


@dataclass(frozen=True, slots=True)
class ZoneStatus:
    """A thermal zone. ``problem`` says why it cannot be read now; its last value is shown a while
    longer, then it is unknown."""

    name: str
    celsius: float | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """The device at the last look at it."""

    gpu: UnitStatus | None = None
    cpu: CpuStatus | None = None
    emc: UnitStatus | None = None
    fans: tuple[FanStatus, ...] = ()
    zones: tuple[ZoneStatus, ...] = ()
