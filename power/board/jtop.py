"""What a jtop server reports of a device, which reads as root what others may not: the GPU and the
memory controller. All else is in files that everybody may read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from typing import Any, Protocol, runtime_checkable

from delen.core.device_status import DeviceStatus, UnitStatus


@runtime_checkable
class DeviceReporter(Protocol):
    """A power source that knows of loads and clocks, too."""

    def device(self) -> DeviceStatus:
        """As last reported; empty where that is too long ago."""


def completed(files: DeviceStatus, other: DeviceStatus) -> DeviceStatus:
    """``files``, and what only the ``other`` knows."""
    return replace(files, gpu=_unit(files.gpu, other.gpu), emc=_unit(files.emc, other.emc))


def _unit(files: UnitStatus | None, other: UnitStatus | None) -> UnitStatus | None:
    if files is None or other is None:
        return files or other
    return UnitStatus(
        other.load if files.load is None else files.load,
        other.clock if files.clock is None else files.clock,
    )


def device_of(stats: Mapping[str, Any]) -> DeviceStatus:
    """The device in what jtop sends its clients. What is not as expected there is unknown."""
    gpus = (_gpu(gpu) for gpu in _part(stats, "gpu").values() if isinstance(gpu, Mapping))
    clock = _number(_part(_part(stats, "mem"), "EMC").get("cur"), 1e3)
    return DeviceStatus(
        gpu=next((gpu for gpu in gpus if gpu is not None), None),
        emc=UnitStatus(clock=clock) if clock else None,  # its load there is rounded down to 0
    )


def _gpu(gpu: Mapping[str, Any]) -> UnitStatus | None:
    load = _number(_part(gpu, "status").get("load"), 0.01)
    clock = _number(_part(gpu, "freq").get("cur"), 1e3)
    if gpu.get("power_control") == "nvml":
        # jtop says 0 where NVML says nothing, and MHz instead of kHz
        load, clock = load or None, None
    return None if load is None and clock is None else UnitStatus(load, clock)


def _part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = whole.get(name)
    return part if isinstance(part, Mapping) else {}


def _number(value: object, times: float) -> float | None:
    """``value`` in another unit; None unless it is a number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return times * value if isfinite(value) and value >= 0 else None
