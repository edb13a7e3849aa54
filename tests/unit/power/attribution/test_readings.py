from __future__ import annotations

import numpy as np
import pytest

from power.attribution.readings import (
    Readings,
    find_hold,
    read,
    since_unchanged,
    without_glitches,
)
from power.sources.series import Samples

RNG = np.random.default_rng(0)


def polls(seconds: float) -> np.ndarray:
    return np.cumsum(0.05 * RNG.uniform(0.9, 1.1, int(seconds / 0.05)))


@pytest.mark.parametrize("period", [0.15, 0.42, 1.0])
def test_the_rhythm_of_a_sensor_that_holds_averages_is_found(period: float) -> None:
    times = polls(20)
    numbers = np.floor((times - 0.1) / period).astype(int)
    averages = RNG.uniform(4, 8, numbers.max() + 2)
    readings = Readings(times, averages[numbers])
    hold = find_hold(readings)
    assert hold is not None
    assert hold.period == pytest.approx(period, rel=0.01)
    once = hold.once_each(readings)
    assert np.diff(once.times) == pytest.approx(np.full(len(once) - 1, period), rel=0.05)
    ends = 0.1 + np.round((once.times - 0.1) / period) * period
    assert once.times == pytest.approx(ends, abs=0.03)
    assert set(once.watts) <= set(averages)


def test_readings_that_change_at_every_poll_have_no_rhythm() -> None:
    times = polls(20)
    assert find_hold(Readings(times, RNG.normal(5, 1, len(times)))) is None


def test_a_counter_is_read_where_it_moved() -> None:
    times = np.arange(10) * 0.05
    joules = np.repeat(np.arange(5), 2) * 0.5
    readings = read(Samples(times, np.full(10, 99.0), joules), -1, 1)
    assert readings.watts == pytest.approx(np.full(4, 5.0))
    assert readings.widths == pytest.approx(np.full(4, 0.1))


@pytest.mark.parametrize("off", [400.0, -60.0])
def test_a_single_glitch_is_dropped_and_a_load_is_not(off: float) -> None:
    times, watts = np.arange(40) * 0.05, RNG.normal(5, 0.02, 40)
    glitch = watts.copy()
    glitch[17] += off
    kept, seen = without_glitches(Readings(times, glitch), np.zeros(0))
    assert len(kept) == 39
    assert abs(kept.watts - 5).max() < 1
    busy = watts + np.where(np.arange(40) > 20, 20.0, 0.0)
    kept, _ = without_glitches(Readings(times, busy), seen)
    assert len(kept) == 40


def test_readings_that_stay_the_same_are_noticed() -> None:
    times = np.arange(100) * 0.05
    watts = np.where(np.arange(100) < 60, RNG.normal(5, 0.1, 100), 5.0)
    stretch = since_unchanged(Readings(times, watts), None)
    assert stretch is not None
    assert stretch.times[0] == pytest.approx(3.0)
    assert since_unchanged(Readings(times, watts), hold=1.0) is None
    assert since_unchanged(Readings(times, RNG.normal(5, 0.1, 100)), None) is None
