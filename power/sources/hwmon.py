"""The kernel's own drivers of power sensors, ``ina3221`` and ``ina238`` (JetPack 5 and later)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from delen.errors import PowerError, SensorAbsent
from power.sources.rails import Channel, Driver, of_one_chip, rail_name
from power.sources.sysfs import ReadFile, read_number, read_text

INA3221_INTERVAL = 0.0066
"""Seconds a conversion takes as the chip is after reset: 3 channels, 2 of 1.1 ms each."""
INA238_INTERVAL = 0.0505
"""Seconds, as the chip is after reset: 16 times 3 conversions of 1052 us."""
INA238_RAIL = "VIN"

_INA3221_ADDRESSES = ("0040", "0041")
_INA238_ADDRESSES = tuple(f"{address:04x}" for address in range(0x40, 0x50))
_CHANNELS = (1, 2, 3)
_MILLIVOLTS_TIMES_MILLIAMPERES = 1e-6
_MICROWATTS = 1e-6


def _ina3221_channels(root: Path, read: ReadFile) -> Iterator[Channel | PowerError]:
    for place, folder in _folders(root, _INA3221_ADDRESSES, "ina3221", read):
        yield from of_one_chip(_of_ina3221(place, folder, read))


def _of_ina3221(place: str, folder: Path, read: ReadFile) -> Iterator[Channel]:
    """Only the three channels: ``in4`` to ``in6`` are shunts, ``in7`` and ``curr4`` sums."""
    interval = _interval(folder, INA3221_INTERVAL, read)
    for number in _CHANNELS:
        rail = rail_name(folder / f"in{number}_label", read)
        if rail is not None and _enabled(folder / f"in{number}_enable", read):
            files = ((folder / f"in{number}_input", "mV"), (folder / f"curr{number}_input", "mA"))
            yield Channel(rail, place, files, _MILLIVOLTS_TIMES_MILLIAMPERES, interval)


def _ina238_channels(root: Path, read: ReadFile) -> Iterator[Channel | PowerError]:
    for place, folder in _folders(root, _INA238_ADDRESSES, "ina238", read):
        yield from of_one_chip(_of_ina238(place, folder, read))


def _of_ina238(place: str, folder: Path, read: ReadFile) -> Iterator[Channel]:
    """The rail that the board's label names; the input where it names none."""
    interval = _interval(folder, INA238_INTERVAL, read)
    rail = rail_name(folder / "label", read) or INA238_RAIL
    yield Channel(rail, place, ((folder / "power1_input", "uW"),), _MICROWATTS, interval)


def _ina238_and_ina3221_channels(root: Path, read: ReadFile) -> Iterator[Channel | PowerError]:
    inputs = list(_ina238_channels(root, read))
    yield from inputs
    if inputs:
        yield from _ina3221_channels(root, read)


def _folders(
    root: Path, addresses: Iterable[str], driver: str, read: ReadFile
) -> Iterator[tuple[str, Path]]:
    """The place and the hwmon folder of every chip with that driver, in a fixed order."""
    devices = root / "sys" / "bus" / "i2c" / "devices"
    for address in addresses:
        for device in sorted(devices.glob(f"*-{address}")):
            for folder in sorted(device.glob("hwmon/hwmon*")):
                if _driver(folder, read) == driver:
                    yield device.name, folder


def _driver(folder: Path, read: ReadFile) -> str | None:
    with suppress(PowerError):  # the folder can go between its listing and this
        return read_text(folder / "name", read)
    return None


def _enabled(path: Path, read: ReadFile) -> bool:
    try:
        return read_number(path, read) != 0
    except SensorAbsent:
        return True


def _interval(folder: Path, default: float, read: ReadFile) -> float:
    """Seconds between conversions as the driver says, or ``default`` where it does not."""
    with suppress(PowerError):
        return max(read_number(folder / "update_interval", read) / 1000, default / 10)
    return default


INA3221 = Driver("ina3221", "module_input", _ina3221_channels)
"""The INA3221 of the module: millivolts times milliamperes of its labelled rails."""
INA238 = Driver("ina238", "carrier_input", _ina238_and_ina3221_channels)
"""The INA238 of the carrier, which measures its input, beside the rails of the module."""
