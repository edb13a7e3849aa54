"""Loads that have a rhythm of their own, read by sensors with and without one."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.plant import Power, Sensor
from delen.core.work import Share, Split, Work
from power.attribution.attribution import Attributor

STATIC, DYNAMIC = 5.1, 7.0
SECONDS = 40
SMOOTH = Sensor(window=1e-3, quantum=1e-3, noise=1e-3)
COARSE = Sensor(quantum=0.4)


def camera(on: float, off: float, jitter: float) -> list[Work]:
    """Works of ``on`` seconds with pauses of ``off``, predicted at half of what they take."""
    rng, now, works = np.random.default_rng(0), 1.0, list[Work]()
    while now < SECONDS:
        ended = now + on + jitter * abs(rng.normal())
        share = Share(f"r{len(works)}", "camera")
        works.append(Work("m", 0, 1, now, ended, DYNAMIC * (ended - now) / 2, (share,)))
        now = ended + off + jitter * abs(rng.normal())
    return works


def serve(works: list[Work], sensor: Sensor) -> tuple[Attributor, list[Split]]:
    began, ended = [work.began for work in works], [work.ended for work in works]
    power = Power(STATIC, began, ended, [2 * (work.joules or 0.0) for work in works])
    samples = sensor.poll(power, -0.1, SECONDS + 1, 0)
    attributor, splits = Attributor(), list[Split]()
    for window in range(SECONDS):
        for work in works:
            if window < work.ended <= window + 1:
                attributor.add(work)
        inside = samples.between(window - 2, window + 1)
        splits.append(attributor.close(window, window + 1, inside))
    return attributor, splits


@pytest.mark.parametrize("jitter", [0.001, 0.01])
@pytest.mark.parametrize("sensor", [SMOOTH, COARSE], ids=["1 mW", "0.4 W"])
@pytest.mark.parametrize(
    ("on", "off"), [(0.2, 0.2), (0.16, 0.16), (0.3, 0.3), (0.2, 0.4), (0.4, 0.2), (0.15, 0.25)]
)
def test_the_rhythm_of_a_load_is_not_taken_for_the_sensors(
    on: float, off: float, sensor: Sensor, jitter: float
) -> None:
    attributor, splits = serve(camera(on, off, jitter), sensor)
    assert attributor.factor("m", 0) == pytest.approx(2, rel=0.1)
    assert attributor.beside_watts == pytest.approx(STATIC, abs=0.3)
    assert attributor.time_constant is None or attributor.time_constant < 0.05
    if sensor is SMOOTH:
        assert {split.kind for split in splits[25:]} == {"attributed"}


@pytest.mark.parametrize("window", [0.15, 0.2, 0.42])
@pytest.mark.parametrize(("on", "off"), [(0.2, 0.2), (0.2, 0.4), (0.1, 0.3)])
def test_the_rhythm_of_a_sensor_is_found_in_that_of_a_load(
    on: float, off: float, window: float
) -> None:
    attributor, _ = serve(camera(on, off, 0.005), Sensor(window=window))
    assert attributor.time_constant == pytest.approx(window, rel=0.05)
    assert attributor.factor("m", 0) == pytest.approx(2, rel=0.1)
