"""The bandwidth of a link over time, read from a trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delen.core.numbers import read_number
from delen.errors import TraceError

HOLD = "hold"
LINEAR = "linear"
INTERPOLATIONS = (HOLD, LINEAR)
HEADER = "time_s,mbps"

_BYTES = 1e6 / 8
"""Bytes a second of one Mbit/s."""


@dataclass(frozen=True, slots=True, eq=False)
class Bandwidth:
    """``rates[i]`` bytes a second at ``times[i]`` seconds (ascending, from 0), until ``end``.

    Between two times the rate is the first one's (``hold``), or goes from one to the other
    (``linear``); after the last it stays until ``end``. A longer run begins anew at ``end``.
    """

    times: NDArray[np.float64]
    rates: NDArray[np.float64]
    end: float
    linear: bool = False

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bytes a second at each of ``times``."""
        times = np.mod(times, self.end)
        if self.linear:
            return np.interp(times, self.times, self.rates)
        held: NDArray[np.float64] = self.rates[np.searchsorted(self.times, times, "right") - 1]
        return held

    def part(self, start: float, seconds: float) -> Bandwidth:
        """The ``seconds`` from ``start`` on, as a bandwidth of its own."""
        end = start + seconds
        inside = self.times[(self.times > start) & (self.times < end)] - start
        times = np.concatenate(([0.0], inside, [seconds] if self.linear and end < self.end else []))
        return Bandwidth(times, self.at(times + start), seconds, self.linear)


def constant(mbps: float, seconds: float = 1.0) -> Bandwidth:
    """``mbps`` Mbit/s at all times."""
    return Bandwidth(np.zeros(1), np.array([mbps * _BYTES]), seconds)


def read_bandwidth(path: str | Path, interpolation: str = HOLD) -> Bandwidth:
    """The bandwidth in the file ``path``.

    Either CSV with the header ``time_s,mbps``, or one value in Mbit/s a line, for a second each.
    The last value lasts as long as the one before it. TraceError names the file and the line.
    """
    file = Path(path)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{file}: it cannot be read: {error}") from error
    rows = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise TraceError(f"{file}, line 1: it is empty; it needs a value in Mbit/s a line")
    points = list(_points(file, rows))
    times = np.array([time for time, _ in points])
    last = float(times[-1] - times[-2]) if len(times) > 1 else 1.0
    rates = np.array([mbps for _, mbps in points]) * _BYTES
    return Bandwidth(times, rates, float(times[-1]) + last, interpolation == LINEAR)


def _points(file: Path, rows: list[tuple[int, str]]) -> Iterator[tuple[float, float]]:
    number, first = rows[0]
    if "," not in first:
        for index, (number, text) in enumerate(rows):
            if number != index + 1:
                raise TraceError(
                    f"{file}, line {index + 1}: it is empty; each line is a second: write 0 where "
                    "nothing passes"
                )
            yield float(index), _number(file, number, text, "mbps")
        return
    if first.replace(" ", "") != HEADER:
        raise TraceError(f"{file}, line {number}: its header is {first!r}; it must be {HEADER}")
    if len(rows) == 1:
        raise TraceError(f"{file}, line {number}: no value follows the header")
    times = []
    for number, text in rows[1:]:
        fields = text.split(",")
        if len(fields) != 2:
            raise TraceError(f"{file}, line {number}: it has {len(fields)} fields; {HEADER} has 2")
        time = _number(file, number, fields[0], "time_s")
        mbps = _number(file, number, fields[1], "mbps")
        times.append((number, time))
        yield time, mbps
    if times[0][1] != 0:
        raise TraceError(f"{file}, line {times[0][0]}: time_s is {times[0][1]:g}; it starts at 0")
    for (_, earlier), (number, later) in pairwise(times):
        if later <= earlier:
            raise TraceError(
                f"{file}, line {number}: time_s {later:g} is not after the {earlier:g} of the row "
                "above; times must ascend"
            )


def _number(file: Path, line: int, text: str, column: str) -> float:
    try:
        value = read_number(text)
        if not 0 <= value < inf:
            raise ValueError
    except ValueError:
        raise TraceError(
            f"{file}, line {line}: {column} must be a finite number of at least 0, not "
            f"{text.strip()!r}"
        ) from None
    return value
