"""What the sensors of power rails have in common: channels that are files, and their total."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal

from delen.errors import PowerError, SensorAbsent
from power.sources.boards import Board, identify_board, total_of, total_rails
from power.sources.source import PowerReading
from power.sources.sysfs import ReadFile, read_file, read_number, read_text

_NOT_CONNECTED = "NC"


@dataclass(frozen=True, slots=True)
class Channel:
    """One rail: the product of the numbers in ``files`` times ``scale`` is its watts.

    ``place`` is the chip's I2C bus and address, ``interval`` the seconds between its conversions.
    """

    rail: str
    place: str
    files: tuple[Path, ...]
    scale: float
    interval: float


@dataclass(frozen=True, slots=True)
class Driver:
    """A kind of sensor: its name, what its total covers, and ``find``, which gives the channels
    that there are now under a root."""

    name: str
    scope: str
    find: Callable[[Path, ReadFile], Iterable[Channel]]


def rail_name(path: Path, read: ReadFile) -> str | None:
    """The rail named in ``path``; None where no name is given, or nothing is connected."""
    try:
        name = read_text(path, read)
    except SensorAbsent:
        return None
    return None if name in ("", _NOT_CONNECTED) else name


class RailSource:
    """A power source that reads the rails of a ``driver`` from files under ``root``.

    The channels are looked for once, and again after a reading failed, for a driver that was
    bound anew numbers its folders anew. A rail of the total that fails makes the reading fail;
    any other that does is left out of it.

    Opening it raises SensorAbsent where there is no sensor, or none that the board's total is
    measured with, and PowerError where it is unknown which rails make up the total, or some of
    these are missing.
    """

    kind: Literal["measured", "estimated"] = "measured"

    def __init__(
        self,
        driver: Driver,
        root: Path,
        total_rails: Sequence[str] = (),
        *,
        read_file: ReadFile = read_file,
    ) -> None:
        self.name = driver.name
        self.scope = driver.scope
        self._driver = driver
        self._root = root
        self._configured = tuple(total_rails)
        self._read_file = read_file
        self._board = identify_board(root)
        self._channels: tuple[Channel, ...] = self._found()
        self._counted = self._checked_total()
        self._interval = max(channel.interval for channel in self._channels)

    @property
    def interval(self) -> float:
        return self._interval

    @property
    def board(self) -> Board | None:
        return self._board

    def read(self) -> PowerReading:
        """The watts of the rails now; negative ones are legal.

        Raises SensorAbsent where the sensor is gone, SensorDenied where this user may not read
        it, and SensorFailed where a rail of the total failed or is missing.
        """
        try:
            return self._reading()
        except SensorAbsent:
            self._channels = ()
            return self._reading()

    def close(self) -> None:
        """Forget the channels; no file is held open."""
        self._channels = ()

    def _reading(self) -> PowerReading:
        channels = self._channels or self._found()
        self._channels = ()
        rails: dict[str, float] = {}
        began = time.monotonic()
        for channel in channels:
            if channel.rail in self._counted:
                rails[channel.rail] = self._watts(channel)
        ended = time.monotonic()
        total = total_of(rails, self._board, self._configured)
        failed = False
        for channel in channels:
            if channel.rail not in self._counted:
                try:
                    rails[channel.rail] = self._watts(channel)
                except PowerError:
                    failed = True
        if not failed:
            self._channels = channels
        return PowerReading((began + ended) / 2, rails, total)

    def _watts(self, channel: Channel) -> float:
        numbers = (read_number(path, self._read_file) for path in channel.files)
        return channel.scale * prod(numbers)

    def _found(self) -> tuple[Channel, ...]:
        """The channels there are, each with a name of its own."""
        channels: dict[str, Channel] = {}
        for channel in self._driver.find(self._root, self._read_file):
            taken = channel.rail in channels
            rail = f"{channel.rail}@{channel.place}" if taken else channel.rail
            channels[rail] = replace(channel, rail=rail)
        if not channels:
            raise SensorAbsent(self._absence())
        return tuple(channels.values())

    def _absence(self) -> str:
        if self._board is not None and not self._board.rails:
            return f"{self._board.family} has no power sensor"
        return f"there is no {self.name} with a named rail under {self._root}"

    def _checked_total(self) -> frozenset[str]:
        counted = total_rails(self._board, self._configured)
        rails = [channel.rail for channel in self._channels]
        listed = ", ".join(rails)
        if not counted:
            raise PowerError(
                f"this board is not known, so its total is unknown; it has the rails {listed}",
                "name the rails of the total in power.total_rails",
            )
        missing = [rail for rail in counted if rail not in rails]
        if missing:
            family = "this board" if self._board is None else self._board.family
            elsewhere = not self._configured and len(missing) == len(counted)
            raise (SensorAbsent if elsewhere else PowerError)(
                f"the total of {family} needs {', '.join(missing)}, but {self.name} has {listed}",
                "try another power.source, or name the rails to add in power.total_rails",
            )
        return frozenset(counted)
