"""A trace: who asks for what and when, in the CSV that ``simulate`` and ``bench`` read."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from itertools import pairwise
from math import inf
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from delen.core.bounds import (
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    Bounds,
    Options,
    check_cap,
    check_fraction,
    check_integer,
    check_name,
)
from delen.core.numbers import read_number, read_whole
from delen.errors import InvalidInput, TraceError

COLUMNS = (
    "time_s",
    "tenant",
    "model",
    "stream",
    "priority",
    "max_latency_ms",
    "min_accuracy",
    "max_energy_mj",
)
TIME = COLUMNS[0]
Number = TypeVar("Number", int, float)

_DEFAULTS = Options()
_NO_BOUNDS = Bounds()


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, which arrives ``time`` seconds after the trace's start with ``bounds``.

    ``model`` None is the default model. InvalidInput names the field that is wrong.
    """

    time: float
    tenant: str = _DEFAULTS.tenant
    model: str | None = None
    stream: str | None = None
    priority: int | None = _DEFAULTS.priority
    bounds: Bounds = _NO_BOUNDS

    def __post_init__(self) -> None:
        _check_time(self.time, "time")
        _check_source(self.tenant, self.model, self.stream, self.priority)


@dataclass(frozen=True, slots=True)
class Trace:
    """Arrivals in the order of their times; InvalidInput if they are not."""

    arrivals: tuple[Arrival, ...] = field(repr=False)

    def __post_init__(self) -> None:
        times = map(attrgetter("time"), self.arrivals)
        for index, (time, later) in enumerate(pairwise(times), start=1):
            if later < time:
                raise InvalidInput(
                    f"arrival {index} is at {later} s, before the {time} s of the one that "
                    "precedes it; times must ascend",
                    "time",
                )

    def __len__(self) -> int:
        return len(self.arrivals)

    def __iter__(self) -> Iterator[Arrival]:
        return iter(self.arrivals)

    @property
    def tenants(self) -> tuple[str, ...]:
        """All tenants in alphabetical order."""
        return tuple(sorted({arrival.tenant for arrival in self.arrivals}))

    def faster(self, speed: float) -> Trace:
        """The same requests ``speed`` times as fast one after the other."""
        if speed == 1:
            return self
        return Trace(
            tuple(replace(arrival, time=arrival.time / speed) for arrival in self.arrivals)
        )


def _check_time(value: float, name: str) -> float:
    if not 0 <= value < inf:
        raise InvalidInput(f"{name} is {value}; it must be finite and at least 0 s", name)
    return value


_Asked = tuple[str, str | None, str | None, int | None, Bounds]
"""Tenant, model, stream, priority and bounds of a request."""


@lru_cache(maxsize=65536)
def _check_source(tenant: str, model: str | None, stream: str | None, priority: int | None) -> None:
    check_name(tenant, "tenant")
    if model is not None:
        check_name(model, "model")
    if stream is not None:
        check_name(stream, "stream")
    if priority is not None:
        check_integer(priority, "priority", HIGHEST_PRIORITY, LOWEST_PRIORITY)


def read_trace(path: str | Path) -> Trace:
    """The trace in the CSV file ``path``.

    The header names some of COLUMNS, ``time_s`` among them, in any order; an empty field is not
    set, and an empty line is skipped. TraceError names the file, and the line and column if one is
    wrong.
    """
    file = Path(path)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return Trace(tuple(_Reader(file, lines).arrivals()))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{file}: it cannot be read: {error}") from error


class _Reader:
    """Reads one file. Rows that differ only in their time are checked once and share the rest."""

    def __init__(self, file: Path, lines: Iterable[str]) -> None:
        self._file = file
        self._rows = csv.reader(lines, strict=True)
        self._asked: dict[tuple[str, ...], _Asked] = {}

    def arrivals(self) -> Iterator[Arrival]:
        try:
            yield from self._read()
        except csv.Error as error:
            raise self._fail(f"it is not a CSV file: {error}") from error

    def _read(self) -> Iterator[Arrival]:
        columns = self._header()
        position, width = columns.index(TIME), len(columns)
        others = columns[:position] + columns[position + 1 :]
        previous = 0.0
        for row in self._rows:
            if not row:
                continue
            if len(row) != width:
                has = f"it has {len(row)} fields; the header has {width}"
                raise self._fail(has + _hint(row[0]))
            text = row.pop(position)
            time = self._time(text)
            if time < previous:
                raise self._fail(
                    f"column {TIME}: {text} s is before the {previous} s of the row above; times "
                    "must ascend"
                )
            previous = time
            key = tuple(row)
            if (asked := self._asked.get(key)) is None:
                asked = self._asked[key] = self._read_asked(dict(zip(others, row, strict=True)))
            yield Arrival(time, *asked)

    def _header(self) -> tuple[str, ...]:
        columns = tuple(next(self._rows, ()))
        if not columns:
            raise self._fail(f"it has no header; it must name {TIME}, and may name {_others()}")
        for index, name in enumerate(columns):
            if name not in COLUMNS:
                known = ", ".join(COLUMNS)
                raise self._fail(f"unknown column {name!r}; known: {known}{_hint(name)}")
            if name in columns[:index]:
                raise self._fail(f"column {name} is given twice")
        if TIME not in columns:
            raise self._fail(f"the column {TIME} is missing; every trace needs it")
        return columns

    def _time(self, text: str) -> float:
        if not text:
            raise self._fail(f"column {TIME}: it is empty; every row needs a time in seconds")
        try:
            return _check_time(_number(text, TIME), TIME)
        except InvalidInput as error:
            raise self._fail(f"column {TIME}: {error}{_hint(text)}") from error

    def _read_asked(self, fields: dict[str, str]) -> _Asked:
        given = {name: text for name, text in fields.items() if text}
        try:
            tenant = given.get("tenant", _DEFAULTS.tenant)
            model, stream = given.get("model"), given.get("stream")
            priority = _DEFAULTS.priority
            if (text := given.get("priority")) is not None:
                priority = _convert(read_whole, text, "priority", "a whole number")
            _check_source(tenant, model, stream, priority)
            floor = given.get("min_accuracy")
            bounds = Bounds(
                max_latency=_cap(given, "max_latency_ms"),
                min_accuracy=None
                if floor is None
                else check_fraction(_number(floor, "min_accuracy"), "min_accuracy"),
                max_energy=_cap(given, "max_energy_mj"),
            )
        except InvalidInput as error:
            column = next((name for name in fields if name.startswith(str(error.field))), "?")
            hint = _hint(fields.get(column, ""))
            raise self._fail(f"column {column}: {error}{hint}") from error
        return tenant, model, stream, priority, bounds

    def _fail(self, sentence: str) -> TraceError:
        return TraceError(f"{self._file}, line {max(1, self._rows.line_num)}: {sentence}")


def _hint(text: str) -> str:
    """What is wrong with the file where a field is ``text``, to be put behind an error."""
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if separator in text:
            return f"; fields are separated by {name}: write commas, with a point in numbers"
    return "; leave out the space beside the comma" if text != text.strip() else ""


def _others() -> str:
    return ", ".join(COLUMNS[1:])


def _number(text: str, column: str) -> float:
    return _convert(read_number, text, column, "a number")


def _convert(kind: Callable[[str], Number], text: str, column: str, what: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise InvalidInput(f"{column} must be {what}, not {text!r}", column) from None


def _cap(given: dict[str, str], column: str) -> float | None:
    """A cap in seconds or joules: the decimal text shifted by three digits. That reads back exactly
    what was written; a division by 1000 may miss by a bit."""
    if (text := given.get(column)) is None:
        return None
    check_cap(_number(text, column), column)
    try:
        return float(Decimal(text.strip()).scaleb(-3))
    except InvalidOperation:
        raise InvalidInput(f"{column} has more digits than are read: {text!r}", column) from None
