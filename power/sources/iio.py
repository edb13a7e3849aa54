"""NVIDIA's driver ``ina3221x`` of the INA3221 (JetPack 4), which is of the IIO subsystem."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from delen.errors import PowerError
from power.sources.rails import Channel, Driver, of_one_chip, rail_name
from power.sources.sysfs import ReadFile

INTERVAL = 0.4224
"""Seconds a reading averages over: 64 samples of 3 channels, 2 conversions of 1.1 ms each."""

_ADDRESSES = ("0040", "0041")
_NUMBERS = (0, 1, 2)
_MILLIWATTS = 1e-3


def _channels(root: Path, read: ReadFile) -> Iterator[Channel | PowerError]:
    driver = root / "sys" / "bus" / "i2c" / "drivers" / "ina3221x"
    for address in _ADDRESSES:
        for device in sorted(driver.glob(f"*-{address}")):
            for folder in sorted(device.glob("iio:device*")):
                yield from of_one_chip(_of_chip(device.name, folder, read))


def _of_chip(place: str, folder: Path, read: ReadFile) -> Iterator[Channel]:
    for number in _NUMBERS:
        rail = rail_name(folder / f"rail_name_{number}", read)
        if rail is not None:
            file = folder / f"in_power{number}_input"
            yield Channel(rail, place, ((file, "mW"),), _MILLIWATTS, INTERVAL)


INA3221X = Driver("ina3221x", "module_input", _channels)
"""The INA3221 of the module by its milliwatts (hwmon's power files are in microwatts)."""
