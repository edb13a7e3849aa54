"""The rhythm of a sensor that holds each average for longer than it is polled at.

Where a reading changes, the sensor has just finished an average; from the changes follow the
period and the phase, and so of which stretch of time each reading is the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from power.attribution.response import Readings

_LEAST_CHANGES = 6
_LEAST_POLLS = 2.5
_FITS = 0.9
_ROUNDS = 4
_MARGIN = 0.12


@dataclass(frozen=True, slots=True)
class Hold:
    """Averages over ``period`` seconds each, finished at ``origin`` + whole periods."""

    period: float
    origin: float

    def means(self, readings: Readings) -> Readings:
        """The averages among ``readings``, each once and with the stretch that it is the mean of.

        Of the readings of one average the middlemost counts; one that was only read close to an
        update, where it may be the next or the last one's, is left out.
        """
        phase = (readings.times - self.origin) / self.period
        number = np.floor(phase)
        off_centre = np.abs(phase - number - 0.5)
        order = np.lexsort((off_centre, number))
        first = np.diff(number[order], prepend=np.nan) != 0
        chosen = order[first & (off_centre[order] < 0.5 - _MARGIN)]
        ends = self.origin + number[chosen] * self.period
        return Readings(ends, readings.watts[chosen], np.full(len(chosen), self.period))


def find_hold(readings: Readings, period: float | None = None) -> Hold | None:
    """The rhythm in which readings change, None where they show none.

    A rhythm is believed if at least 2.5 polls fit in it, and nine in ten changes lie within a
    poll of where it has one. ``period``, from an earlier call, is where the search begins.
    """
    times = readings.times
    changed = np.flatnonzero(np.diff(readings.watts))
    if len(changed) < _LEAST_CHANGES:
        return None
    polls = np.diff(times)
    moments = (times[changed] + times[changed + 1]) / 2
    poll = float(np.median(polls))
    gaps = np.diff(moments)
    period = float(np.median(gaps)) if period is None else period
    if period < _LEAST_POLLS * poll:
        return None
    origin = float(moments[0])
    for _ in range(_ROUNDS):
        steps = np.cumsum(np.round(gaps / period))
        numbers = np.concatenate([[0.0], steps])
        if numbers[-1] <= 0:
            return None
        period, origin = (float(value) for value in np.polyfit(numbers, moments - moments[0], 1))
        origin += float(moments[0])
        if period < _LEAST_POLLS * poll:
            return None
    misses = np.abs(moments - origin - numbers * period)
    if np.mean(misses <= 0.6 * poll) < _FITS:
        return None
    last = origin + numbers[-1] * period
    return Hold(period, last)
