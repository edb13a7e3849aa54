"""Readings as they can be learnt from: each average once, without glitches and frozen ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from power.sources.series import Floats, Samples

_LEAST_CHANGES = 8
_POLLS = 2.5  # for which a value stays, on average, that the sensor holds
_FITS, _ROUNDS = 0.9, 4  # changes that lie in the rhythm, and rounds in which it is found
_INSIDE = 0.38  # of a period: farther from the middle of an average it may be another's
_GLITCH, _GLITCH_WATTS, _GLITCH_AMONG = 8.0, 2.0, 100
_GAP, _GAP_HOLDS = 0.25, 2.5
_STILL, _STILL_HOLDS, _STILL_POLLS = 1.0, 4.0, 4.0  # seconds, holds, polls without a change


@dataclass(frozen=True, slots=True)
class Readings:
    """``watts`` ``[n]`` shown at ``times`` ``[n]``; those of a counter are means over ``widths``
    seconds up to then."""

    times: Floats
    watts: Floats
    widths: Floats | None = None

    def __len__(self) -> int:
        return len(self.times)

    def take(self, chosen: NDArray[np.bool_] | slice) -> Readings:
        widths = None if self.widths is None else self.widths[chosen]
        return Readings(self.times[chosen], self.watts[chosen], widths)

    def after(self, time: float) -> Readings:
        return self.take(self.times > time)

    def until(self, time: float) -> Readings:
        return self.take(self.times <= time)

    def joined(self, later: Readings) -> Readings:
        if not len(self) or (self.widths is None) != (later.widths is None):
            return later
        widths = None
        if self.widths is not None and later.widths is not None:
            widths = np.concatenate([self.widths, later.widths])
        times = np.concatenate([self.times, later.times])
        return Readings(times, np.concatenate([self.watts, later.watts]), widths)


@dataclass(frozen=True, slots=True)
class Hold:
    """The rhythm of a sensor that holds each average: over ``period`` seconds each, done at
    ``origin`` + whole periods."""

    period: float
    origin: float

    def once_each(self, readings: Readings) -> Readings:
        """The averages among ``readings``, each once, at the moment at which it was done; of the
        readings of one the middlemost counts."""
        phase = (readings.times - self.origin) / self.period
        number = np.floor(phase)
        off_centre = np.abs(phase - number - 0.5)
        order = np.lexsort((off_centre, number))
        is_first = np.diff(number[order], prepend=np.nan) != 0
        chosen = order[is_first & (off_centre[order] < _INSIDE)]
        return Readings(self.origin + number[chosen] * self.period, readings.watts[chosen])


def read(samples: Samples, after: float, until: float) -> Readings:
    """The readings in ``samples`` after one moment and up to another; of a counter, one for each
    time that it moved."""
    readings = Readings(samples.times, samples.watts)
    if samples.joules is not None:
        moved = np.diff(samples.joules, prepend=np.nan) != 0
        times, joules = samples.times[moved], samples.joules[moved]
        widths = np.diff(times)
        readings = Readings(times[1:], np.diff(joules) / widths, widths)
    return readings.after(after).until(until)


def without_glitches(readings: Readings, before: Floats) -> tuple[Readings, Floats]:
    """``readings`` without single ones that are far from the others: much farther from the median
    than the third farthest of these and of the watts ``before``. Also the watts for the next time.
    """
    watts = np.concatenate([before, readings.watts])[-_GLITCH_AMONG - len(readings) :]
    if len(watts) < _LEAST_CHANGES:
        return readings, watts
    far = np.abs(watts - np.median(watts))
    usual = float(np.sort(far)[-3])
    near = far[len(watts) - len(readings) :] <= _GLITCH * usual + _GLITCH_WATTS
    return readings.take(near), watts


def find_hold(readings: Readings) -> Hold | None:
    """The rhythm in which readings change; None where they change at every poll, or without a
    rhythm."""
    times = readings.times
    changes = np.flatnonzero(np.diff(readings.watts))
    if readings.widths is not None or len(changes) < _LEAST_CHANGES:
        return None
    poll = float(np.median(np.diff(times)))
    moments = (times[changes] + times[changes + 1]) / 2
    gaps = np.diff(moments)
    shortest = float(np.quantile(gaps, 0.15))
    period, origin = float(np.median(gaps[gaps < 1.5 * shortest + 1e-9])), float(moments[0])
    numbers = np.zeros(1)
    for _ in range(_ROUNDS):
        if min(period, shortest) < _POLLS * poll:
            return None
        numbers = np.concatenate([[0.0], np.cumsum(np.round(gaps / period))])
        if numbers[-1] <= 0:
            return None
        period, since = (float(value) for value in np.polyfit(numbers, moments - moments[0], 1))
        origin = float(moments[0]) + since
    misses = np.abs(moments - origin - numbers * period)
    if np.mean(misses <= 0.6 * poll) < _FITS:
        return None
    return Hold(period, origin + float(numbers[-1]) * period)


def longest_gap(hold: float | None) -> float:
    """Seconds between two readings that still follow on each other."""
    return max(_GAP, _GAP_HOLDS * (hold or 0.0))


def since_unchanged(readings: Readings, hold: float | None) -> Readings | None:
    """The last readings, where these did not change for long; None where they did."""
    if readings.widths is not None or len(readings) < _LEAST_CHANGES:
        return None
    others = np.flatnonzero(readings.watts != readings.watts[-1])
    stretch = readings.take(slice(int(others[-1]) + 1 if len(others) else 0, None))
    poll = float(np.median(np.diff(readings.times)))
    long = max(_STILL, _STILL_POLLS * poll, _STILL_HOLDS * (hold or 0.0))
    return stretch if stretch.times[-1] - stretch.times[0] > long else None
