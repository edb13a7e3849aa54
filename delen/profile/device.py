"""Which device this is: what a latency depends on and can be read without privileges."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from delen.profile.profile import Device

DEVICE_TREE_MODEL = "proc/device-tree/model"
CPU_INFO = "proc/cpuinfo"
DEFAULT_MODE = "default"


def processor_name(root: Path) -> str:
    """The board's name from the device tree under ``root`` (a Jetson has one), else the CPU's."""
    try:
        return (root / DEVICE_TREE_MODEL).read_text().rstrip("\0\n")
    except OSError:
        return _cpu_name(root)


def _cpu_name(root: Path) -> str:
    try:
        lines = (root / CPU_INFO).read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def available_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def identify(
    root: Path,
    provider: str,
    threads: int,
    runtime: str = "onnxruntime",
    power_mode: str = DEFAULT_MODE,
) -> Device:
    """This device as profiles name it, for what ``provider`` of ``runtime`` runs on it in
    ``power_mode`` (the key of power.modes.read_mode)."""
    return Device(
        processor=processor_name(root),
        cores=available_cores(),
        backend=runtime,
        provider=provider,
        threads=threads,
        power_mode=power_mode,
    )
