from __future__ import annotations

from math import inf

import pytest

from policies.energy.constraint import Market, PowerView
from policies.energy.thermal import ThermalHeadroom

MARKET = Market(lambda price: max(0.0, 10.0 - price), (0.01, 10.0))


def follow(thermal: ThermalHeadroom, since: float, **view: object) -> float:
    """Tick until the headroom has been followed."""
    for second in range(60):
        thermal.tick(PowerView(since + second, **view), MARKET)  # type: ignore[arg-type]
    return thermal.price


def test_near_a_trip_point_energy_has_a_price() -> None:
    thermal = ThermalHeadroom(5.0)
    assert follow(thermal, 0.0, headroom=20.0) == 0
    assert follow(thermal, 100.0, headroom=2.5) == pytest.approx(5.0, abs=0.1)
    assert follow(thermal, 200.0, headroom=-1.0) == inf
    assert follow(thermal, 300.0, headroom=20.0) == 0


def test_a_zone_that_can_no_longer_be_read_is_neither_known_nor_cool() -> None:
    thermal = ThermalHeadroom(5.0)
    price = follow(thermal, 0.0, headroom=2.5)
    silent = follow(thermal, 100.0, headroom=2.5, unread_zones=("gpu-thermal",))
    assert silent == pytest.approx(price, rel=0.01)
    status = thermal.status()
    assert (status.value, status.headroom) == (None, None)
    assert "gpu-thermal" in status.explanation
    assert status.binding
    follow(thermal, 200.0, headroom=30.0)
    status = thermal.status()
    assert status.value == pytest.approx(30.0)
    assert "gpu-thermal" not in status.explanation


def test_without_trip_points_it_says_so() -> None:
    thermal = ThermalHeadroom(5.0)
    follow(thermal, 0.0)
    assert (thermal.status().value, thermal.price) == (None, 0.0)
    assert "no trip point" in thermal.status().explanation
