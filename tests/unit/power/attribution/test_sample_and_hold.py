from __future__ import annotations

import numpy as np
import pytest

from benchmarks.plant import Power, Sensor, polls
from power.attribution.response import Readings
from power.attribution.sample_and_hold import find_hold


def busy(seconds: float, seed: int) -> Power:
    rng = np.random.default_rng(seed)
    began = np.sort(rng.uniform(0, seconds, int(30 * seconds)))
    return Power(3.0, began, began + 0.01, rng.uniform(0.01, 0.1, len(began)))


def readings(sensor: Sensor, power: Power, seconds: float, seed: int) -> Readings:
    samples = sensor.poll(power, 0, seconds, seed)
    return Readings(samples.times, samples.watts)


@pytest.mark.parametrize("window", [0.2, 0.42, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_period_and_phase_of_a_held_average_are_found(window: float, seed: int) -> None:
    hold = find_hold(readings(Sensor(window=window), busy(30, seed), 30, seed))
    assert hold is not None
    assert hold.period == pytest.approx(window, rel=0.01)
    phase = np.random.default_rng(seed).uniform(0, window)
    off = (hold.origin - phase) / window % 1
    assert min(off, 1 - off) * window < 0.02


def test_each_average_counts_once_and_is_of_its_stretch() -> None:
    power, sensor = busy(30, 1), Sensor(window=0.42, quantum=0, noise=0)
    shown = readings(sensor, power, 30, 1)
    hold = find_hold(shown)
    assert hold is not None
    means = hold.means(shown)
    assert means.widths is not None
    assert len(means) == pytest.approx(30 / 0.42, abs=3)
    assert np.all(np.diff(means.times) > 0.4)
    true = (power.joules(means.times) - power.joules(means.times - means.widths)) / means.widths
    assert means.watts == pytest.approx(true, abs=0.25)


def test_a_sensor_that_is_faster_than_its_polls_has_no_rhythm() -> None:
    assert find_hold(readings(Sensor(window=0.0066), busy(30, 2), 30, 2)) is None


def test_an_idle_device_of_coarse_steps_has_no_rhythm() -> None:
    shown = readings(Sensor(window=0.0066, quantum=0.04, noise=0.012), Power(3.01), 30, 3)
    assert find_hold(shown) is None


def test_a_rhythm_known_already_survives_a_quiet_stretch() -> None:
    times = polls(0, 30, 4)
    watts = Sensor(window=0.42, noise=0.0).read(busy(10, 4), times, 4)
    assert find_hold(Readings(times[times > 12], watts[times > 12]), 0.42) is None
