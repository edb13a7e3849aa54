"""The watt cap, the battery horizon and the thermal headroom, each for itself."""

from __future__ import annotations

from math import inf

import pytest

from delen.core.energy_status import Battery
from delen.core.frontier import Choice, Frontier
from policies.energy.battery import BatteryHorizon
from policies.energy.constraint import Market, PowerView
from policies.energy.demand import price_range, watts
from policies.energy.thermal import ThermalHeadroom
from policies.energy.watt_cap import WattCap

FRONTIER = Frontier((Choice(0, None, 0.05, 0.8), Choice(1, None, 0.10, 0.88)))
STEP = FRONTIER.prices[0]


def market(
    rate: float, baseline: float | None = 3.0, measured: bool = True, used: float = 0.0
) -> Market:
    rates = [(rate, FRONTIER)]
    between = price_range(rates)
    return Market(lambda price: watts(rates, price), between, baseline, measured, used)


@pytest.mark.parametrize(("rate", "price"), [(20.0, 0.0), (75.0, STEP), (200.0, inf)])
def test_a_watt_cap_leaves_requests_what_the_device_does_not_draw(
    rate: float, price: float
) -> None:
    cap = WattCap(8.0)
    cap.tick(PowerView(0.0, watts=7.0), market(rate))
    assert cap.price == pytest.approx(price, rel=0.01)
    status = cap.status()
    assert (status.unit, status.limit, status.value, status.headroom) == ("W", 8.0, 7.0, 1.0)
    assert "draws 3 W without requests, which leaves them 4.92 W" in status.explanation


def test_a_rush_is_held_back_until_power_is_there_again() -> None:
    cap = WattCap(8.0)
    cap.tick(PowerView(0.0, watts=7.0), market(60.0))
    spent = 0.0
    while cap.allowance(0.0) >= 0.05:
        cap.spend(0.05)
        spent += 0.05
    assert spent <= 0.11 * 8.0
    refusal = cap.refuse(0.05, 0.0)
    assert 0 < refusal.retry_after < 0.1
    assert "the watt cap of 8 W leaves requests 4.92 W" in str(refusal)
    assert cap.allowance(refusal.retry_after + 1e-6) >= 0.05


def test_an_emptied_bucket_raises_the_price() -> None:
    cap = WattCap(8.0)
    cap.tick(PowerView(0.0, watts=7.0), market(46.0))
    assert cap.price == 0.0
    cap.spend(0.7)
    cap.tick(PowerView(0.01, watts=7.0), market(46.0))
    assert cap.price > 0.0


def test_a_cap_below_the_idle_power_refuses_and_says_so() -> None:
    cap = WattCap(2.5)
    cap.tick(PowerView(0.0, watts=3.0), market(10.0))
    assert (cap.price, cap.allowance(1.0)) == (inf, 0.0)
    refusal = cap.refuse(0.05, 1.0)
    assert "draws 3 W without requests" in str(refusal)
    assert 0 < refusal.retry_after < inf


@pytest.mark.parametrize(
    ("baseline", "says"),
    [(3.0, "drew (the sensor does not answer now) 3 W"), (None, "beside requests is unknown")],
)
def test_a_cap_without_a_sensor_goes_by_predictions_and_says_so(
    baseline: float | None, says: str
) -> None:
    cap = WattCap(8.0)
    cap.tick(PowerView(0.0), market(200.0, baseline, measured=False))
    assert cap.price == inf
    status = cap.status()
    assert (status.value, status.headroom) == (None, None)
    assert says in status.explanation


@pytest.mark.parametrize("watts", [0.0, -1.0, inf])
def test_a_cap_must_be_a_power(watts: float) -> None:
    with pytest.raises(ValueError, match="above 0 and finite"):
        WattCap(watts)


def test_a_battery_is_spent_evenly_over_what_is_left_of_its_time() -> None:
    """100 s and 800 J above the reserve, 3 W beside requests; their demand is 9, then 6 W."""
    horizon = BatteryHorizon(Battery(1000.0, 200.0, 100.0), 0.0)
    horizon.tick(PowerView(0.0, watts=8.0, joules=50.0), market(90.0))
    assert horizon.price == pytest.approx(STEP, rel=0.01)
    horizon.tick(PowerView(50.0, watts=8.0, joules=250.0), market(60.0))
    assert horizon.price == 0.0
    status, state = horizon.status(), horizon.describe()
    assert (state.left, state.reserve, state.last) == (800.0, 200.0, 50.0)
    assert state.allowed == pytest.approx(12.0)
    assert state.lasts == pytest.approx(600 / 9)
    assert status.limit == 100.0
    assert status.value == pytest.approx(50 + 600 / 9)
    assert "600 J are left above the reserve; at the 9 W of now they last" in status.explanation


def test_limits_that_were_just_set_do_not_say_that_there_is_no_sensor() -> None:
    limits = (BatteryHorizon(Battery(1000.0, 200.0, 100.0), 0.0), WattCap(8.0))
    said = [limit.status().explanation for limit in limits]
    assert said == ["800 J are left above the reserve", "it was set a moment ago"]


def test_a_battery_without_a_sensor_counts_what_is_predicted() -> None:
    horizon = BatteryHorizon(Battery(1000.0, 200.0, 100.0), 0.0)
    horizon.tick(PowerView(0.0, joules=50.0), market(60.0))
    horizon.tick(PowerView(10.0, joules=130.0), market(60.0))
    horizon.tick(PowerView(20.0), market(60.0, measured=False, used=40.0))
    assert horizon.used == pytest.approx(80 + 30 + 40)
    assert "by predicted energy" in horizon.status().explanation
    horizon.tick(PowerView(21.0, joules=900.0), market(60.0))
    assert horizon.used == pytest.approx(150 + 3)


def test_a_battery_counts_what_passed_before_a_stall_was_noticed() -> None:
    horizon = BatteryHorizon(Battery(1000.0, 200.0, 100.0), 0.0)
    horizon.tick(PowerView(0.0, joules=50.0), market(60.0))
    horizon.tick(PowerView(1.0, joules=58.0), market(60.0, used=5.0))
    horizon.tick(PowerView(2.0, joules=58.0), market(60.0, used=5.0))
    horizon.tick(PowerView(3.0), market(60.0, measured=False, used=5.0))
    assert horizon.used == pytest.approx(8 + 2 * 3 + 10)
    horizon.tick(PowerView(4.0, joules=58.0), market(60.0, used=5.0))
    horizon.tick(PowerView(5.0, joules=66.0), market(60.0, used=5.0))
    assert horizon.used == pytest.approx(24 + 3 + 5 + 8)


def test_the_reserve_is_kept_even_after_the_time_is_over() -> None:
    horizon = BatteryHorizon(Battery(1000.0, 200.0, 100.0), 0.0)
    horizon.tick(PowerView(0.0, joules=0.0), market(200.0))
    horizon.tick(PowerView(101.0, joules=700.0), market(200.0))
    assert (horizon.price, horizon.allowance(101.0)) == (0.0, inf)
    horizon.tick(PowerView(110.0, joules=800.0), market(200.0))
    assert horizon.allowance(110.0) == 0.0
    assert "down to its reserve" in str(horizon.refuse(0.1, 110.0))


def test_a_battery_that_idling_drains_too_soon_refuses_and_says_so() -> None:
    horizon = BatteryHorizon(Battery(200.0, 0.0, 100.0), 0.0)
    horizon.tick(PowerView(0.0, watts=3.0, joules=0.0), market(10.0))
    assert horizon.allowance(1.0) == 0.0
    assert "draws 3 W without requests" in str(horizon.refuse(0.1, 1.0))


def test_a_battery_holds_back_a_lasting_rush() -> None:
    horizon = BatteryHorizon(Battery(1000.0, 200.0, 100.0), 0.0)
    horizon.tick(PowerView(0.0, watts=8.0, joules=0.0), market(60.0))
    spent = 0.0
    while horizon.allowance(0.0) >= 0.05:
        horizon.spend(0.05)
        spent += 0.05
    assert spent == pytest.approx(5.0, abs=0.1)
    refusal = horizon.refuse(0.05, 0.0)
    assert "leaves requests 5 W until its time is over" in str(refusal)


@pytest.mark.parametrize(
    ("headroom", "price"), [(None, 0.0), (12.0, 0.0), (4.5, STEP), (1.0, inf), (-2.0, inf)]
)
def test_heat_makes_energy_dear_but_refuses_nobody(headroom: float | None, price: float) -> None:
    thermal = ThermalHeadroom(5.0)
    thermal.tick(PowerView(0.0, headroom=headroom), market(20.0))
    assert thermal.price == pytest.approx(price, rel=0.01)
    assert thermal.allowance(0.0) == inf
    status = thermal.status()
    assert status.value == headroom
    assert status.binding is (price > 0)


def test_one_odd_reading_of_a_zone_does_not_stop_the_show() -> None:
    thermal = ThermalHeadroom(5.0)
    for tick in range(20):
        thermal.tick(PowerView(tick / 10, headroom=8.0), market(20.0))
    thermal.tick(PowerView(2.1, headroom=-10.0), market(20.0))
    assert thermal.price == 0.0
    for tick in range(60):
        thermal.tick(PowerView(2.2 + tick / 10, headroom=-10.0), market(20.0))
    assert thermal.price == inf
