from __future__ import annotations

from math import exp

import pytest

from policies.energy.background_power import Baseline
from policies.energy.constraint import PowerView


def test_attributed_power_is_followed_and_kept_while_nothing_is_measured() -> None:
    baseline = Baseline()
    baseline.tick(PowerView(0.0, watts=9.0, static=3.0, other=0.5), 0.0)
    assert baseline.watts == 3.5
    for tick in range(1, 60):
        baseline.tick(PowerView(tick / 10, watts=9.0, static=3.0, other=1.5), 0.5)
    assert baseline.watts == pytest.approx(4.5, abs=0.01)
    assert baseline.measured
    baseline.tick(PowerView(6.0), 0.5)
    assert baseline.watts == pytest.approx(4.5, abs=0.01)
    assert not baseline.measured


@pytest.mark.parametrize("lag", [0.0, 0.42])
def test_before_attribution_requests_are_taken_from_what_the_sensor_shows(lag: float) -> None:
    """Requests draw 2 W from 1 s on and 6 W from 5 s on; the sensor follows with its lag."""
    baseline, seen = Baseline(), 0.0
    for tick in range(1, 200):
        watts = 0.0 if tick < 10 else 2.0 if tick < 50 else 6.0
        seen += (1 - exp(-0.1 / lag) if lag else 1.0) * (watts - seen)
        baseline.tick(PowerView(tick / 10, watts=3.0 + seen, lag=lag), 0.1 * watts)
        assert baseline.watts == pytest.approx(3.0, abs=0.05)


def test_nothing_is_known_before_the_first_reading() -> None:
    baseline = Baseline()
    baseline.tick(PowerView(0.0), 1.0)
    assert baseline.watts is None
