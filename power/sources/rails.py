"""What the sensors of power rails have in common: channels that are files, and their total."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal

from delen.errors import PowerError, SensorAbsent, SensorFailed
from power.sources.boards import Board, check_total, identify_board, total_rails
from power.sources.source import PowerReading
from power.sources.sysfs import ReadFile, read_file, read_number, read_text

_NOT_CONNECTED = "NC"


@dataclass(frozen=True, slots=True)
class Channel:
    """One rail: the product of the numbers in ``files`` times ``scale`` is its watts.

    ``place`` is the chip's I2C bus and address, ``interval`` the seconds between its conversions.
    Each file comes with the unit that may stand after its number.
    """

    rail: str
    place: str
    files: tuple[tuple[Path, str], ...]
    scale: float
    interval: float

    @property
    def full_name(self) -> str:
        """The rail's name with its place, which no other rail has."""
        return f"{self.rail}@{self.place}"


@dataclass(frozen=True, slots=True)
class Driver:
    """A kind of sensor: its name, what its total covers, and ``find``, which gives the channels
    that there are now under a root, and an error for each chip that cannot be read."""

    name: str
    scope: str
    find: Callable[[Path, ReadFile], Iterable[Channel | PowerError]]


def of_one_chip(channels: Iterable[Channel]) -> list[Channel] | list[PowerError]:
    """The channels of a chip; where one of them cannot be read, its error alone."""
    try:
        return list(channels)
    except PowerError as error:
        return [error]


def rail_name(path: Path, read: ReadFile) -> str | None:
    """The rail named in ``path``; None where no name is given, or nothing is connected."""
    try:
        name = read_text(path, read)
    except SensorAbsent:
        return None
    return None if name in ("", _NOT_CONNECTED) else name


@dataclass(frozen=True, slots=True)
class _Stamped:
    time: float
    watts: float


def _at(time: float, now: _Stamped, before: _Stamped | None) -> float:
    """The watts at ``time``, by a line from the reading ``before``; those of ``now`` where there is
    none, or it is not earlier."""
    if before is None or before.time >= now.time or time < before.time:
        return now.watts
    share = (time - before.time) / (now.time - before.time)
    return before.watts + share * (now.watts - before.watts)


class RailSource:
    """A power source that reads the rails of a ``driver`` from files under ``root``.

    The channels are looked for once, and again after a reading failed, for a driver that was
    bound anew numbers its folders anew. A rail of the total that fails makes the reading fail;
    any other that does is left out of it, and so is a chip that cannot be read.

    Rails are read one after the other, each in 5 to 13 ms. The total is that of one moment, at
    which the first was read: the others are interpolated from the reading before.

    Opening it raises SensorAbsent where there is no sensor, or none that the board's total is
    measured with, and PowerError where it is unknown which rails make up the total, some of these
    are missing, or two chips have one of them.
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
        self._broken: tuple[PowerError, ...] = ()
        self._before: Mapping[str, _Stamped] = {}
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
        read: dict[str, _Stamped] = {}
        for channel in channels:
            if channel.rail in self._counted:
                began = time.monotonic()
                watts = self._watts(channel)
                read[channel.rail] = _Stamped((began + time.monotonic()) / 2, watts)
        rails = {rail: stamped.watts for rail, stamped in read.items()}
        check_total(rails, self._counted)
        at = min(stamped.time for stamped in read.values())
        total = sum(_at(at, stamped, self._before.get(rail)) for rail, stamped in read.items())
        self._refuse_impossible(total)
        self._before = read
        failed = False
        for channel in channels:
            if channel.rail not in self._counted:
                try:
                    rails[channel.rail] = self._watts(channel)
                except PowerError:
                    failed = True
        if not failed:
            self._channels = channels
        return PowerReading(at, rails, total)

    def _watts(self, channel: Channel) -> float:
        numbers = (read_number(path, self._read_file, unit) for path, unit in channel.files)
        return channel.scale * prod(numbers)

    def _refuse_impossible(self, total: float) -> None:
        if total <= 0:
            raise SensorFailed(f"{self.name} reads {total:.4g} W, and no device draws that")
        if self._board is not None and total > self._board.most_watts:
            raise SensorFailed(
                f"{self.name} reads {total:.4g} W, and {self._board.family} cannot draw more than "
                f"{self._board.most_watts:g} W"
            )

    def _found(self) -> tuple[Channel, ...]:
        """The channels there are. Where several have one name, each has its place in it, and so has
        one that is configured so."""
        found = list(self._driver.find(self._root, self._read_file))
        self._broken = tuple(error for error in found if isinstance(error, PowerError))
        channels = [channel for channel in found if isinstance(channel, Channel)]
        if not channels:
            raise self._broken[0] if self._broken else SensorAbsent(self._absence())
        times = Counter(channel.rail for channel in channels)
        return tuple(
            replace(channel, rail=channel.full_name)
            if times[channel.rail] > 1 or channel.full_name in self._configured
            else channel
            for channel in channels
        )

    def _absence(self) -> str:
        if self._board is not None and not self._board.rails:
            return f"{self._board.family} has no power sensor"
        return f"there is no {self.name} with a named rail under {self._root}"

    def _checked_total(self) -> tuple[str, ...]:
        counted = total_rails(self._board, self._configured)
        rails = [channel.rail for channel in self._channels]
        listed = ", ".join(rails)
        if not counted:
            raise PowerError(
                f"this board is not known, so its total is unknown; it has the rails {listed}",
                "name the rails of the total in power.total_rails",
            )
        missing = [rail for rail in counted if rail not in rails]
        for rail in missing:
            places = [known for known in rails if known.startswith(f"{rail}@")]
            if len(places) > 1:
                raise PowerError(
                    f"{len(places)} chips have a rail {rail}: {', '.join(places)}",
                    f"name the one that counts, as in power.total_rails = [{places[0]!r}]",
                )
        if missing and self._broken:
            raise self._broken[0]
        if missing:
            family = "this board" if self._board is None else self._board.family
            elsewhere = not self._configured and len(missing) == len(counted)
            raise (SensorAbsent if elsewhere else PowerError)(
                f"the total of {family} needs {', '.join(missing)}, but {self.name} has {listed}",
                "try another power.source, or name the rails to add in power.total_rails",
            )
        return counted
