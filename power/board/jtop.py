"""What a jtop server reports of a device, which reads as root what others may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from typing import Any, Protocol, runtime_checkable

from delen.core.device_status import (
    CoreStatus,
    CpuStatus,
    DeviceStatus,
    FanStatus,
    UnitStatus,
    ZoneStatus,
)


@runtime_checkable
class DeviceReporter(Protocol):
    """A power source that knows of load, clocks, fans and temperatures, too."""

    def device(self) -> DeviceStatus:
        """As last reported; empty where that is too long ago."""


def completed(files: DeviceStatus, other: DeviceStatus) -> DeviceStatus:
    """``files``, and what only the ``other`` knows."""
    return DeviceStatus(
        gpu=_unit(files.gpu, other.gpu),
        cpu=files.cpu or other.cpu,
        emc=_unit(files.emc, other.emc),
        fans=files.fans or other.fans,
        zones=files.zones or other.zones,
    )


def _unit(files: UnitStatus | None, other: UnitStatus | None) -> UnitStatus | None:
    if files is None or other is None:
        return files or other
    return replace(
        files,
        load=other.load if files.load is None else files.load,
        clock=other.clock if files.clock is None else files.clock,
    )


def device_of(stats: Mapping[str, Any]) -> DeviceStatus:
    """The device in what jtop sends its clients. What is not as expected there is unknown."""
    memory, processor = _part(stats, "mem"), _part(stats, "cpu")
    gpus = [_gpu(gpu) for gpu in _part(stats, "gpu").values() if isinstance(gpu, Mapping)]
    emc = _number(_part(memory, "EMC").get("cur"), 1e3)
    return DeviceStatus(
        gpu=next((gpu for gpu in gpus if gpu is not None), None),
        cpu=_cpu(processor.get("cpu")),
        emc=None if not emc else UnitStatus(clock=emc),  # its load there is rounded down to 0
        fans=tuple(_fans(_part(stats, "fan"))),
        zones=tuple(
            ZoneStatus(name, celsius)
            for name, zone in _part(stats, "temperature").items()
            if isinstance(zone, Mapping)
            and zone.get("online", True)
            and (celsius := _number(zone.get("temp"), least=-55.0)) is not None
        ),
    )


def _gpu(gpu: Mapping[str, Any]) -> UnitStatus | None:
    load = _number(_part(gpu, "status").get("load"), 0.01)
    clock = _number(_part(gpu, "freq").get("cur"), 1e3)
    if gpu.get("power_control") == "nvml":
        # jtop says 0 where NVML says nothing, and MHz instead of kHz
        load, clock = load or None, None
    return None if load is None and clock is None else UnitStatus(load, clock)


def _cpu(cores: object) -> CpuStatus | None:
    if not isinstance(cores, list):
        return None
    found = [
        CoreStatus(
            number,
            None if (idle := _number(core.get("idle"), 0.01)) is None else max(0.0, 1 - idle),
            _number(_part(core, "freq").get("cur"), 1e3),
        )
        for number, core in enumerate(cores)
        if isinstance(core, Mapping) and core.get("online")
    ]
    loads = [core.load for core in found if core.load is not None]
    clocks = [core.clock for core in found if core.clock is not None]
    if not loads and not clocks:
        return None
    load = sum(loads) / len(loads) if loads else None
    return CpuStatus(load, max(clocks, default=None), tuple(found))


def _fans(fans: Mapping[str, Any]) -> list[FanStatus]:
    found = []
    for name, fan in fans.items():
        if not isinstance(fan, Mapping):
            continue
        speed, rpm = _number(_first(fan.get("speed")), 0.01), _number(_first(fan.get("rpm")))
        if speed is not None or rpm is not None:
            found.append(FanStatus(name, speed, rpm))
    return found


def _part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = whole.get(name)
    return part if isinstance(part, Mapping) else {}


def _first(values: object) -> object:
    return values[0] if isinstance(values, list) and values else None


def _number(value: object, times: float = 1.0, least: float = 0.0) -> float | None:
    """``value`` in another unit; None unless it is a number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return times * value if isfinite(value) and value >= least else None
