from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.core.energy_status import (
    UNCHANGED,
    AttributionStatus,
    Battery,
    BatteryStatus,
    BoardEnergy,
    ConstraintStatus,
    ModeStatus,
    PowerChanges,
    PowerStatus,
    SegmentStatus,
    Settled,
    WindowStatus,
)
from delen.core.result import AccuracyOutcome, EnergyOutcome, LatencyOutcome, Receipt
from delen.errors import InvalidInput, UnknownField
from delen.wire.answers import SettledRequest
from delen.wire.message import Message, read_answer, write
from delen.wire.power import Power, Window
from delen.wire.requests import PowerChange

WINDOW = WindowStatus(1.7e9, 1.0, 7.5, {"VDD_IN": 7.5}, 2.0, 5.0, 0.5, "attributed", math.inf, "ok")
STATUS = PowerStatus(
    source="ina3221",
    scope="module_input",
    kind="measured",
    watts=7.5,
    rails={"VDD_IN": 7.5, "VDD_SOC": -0.02},
    state="ok",
    since=12.0,
    problem=None,
    warning=None,
    age=0.03,
    board="Orin NX",
    mode=ModeStatus(2, "15W", "gpu612", False, ("fan at its limit",)),
    static=5.0,
    dynamic=2.0,
    other=0.5,
    time_constant=0.0066,
    price=0.25,
    controller="price",
    constraints=(
        ConstraintStatus("watt_cap", "W", 8.0, 7.5, 0.5, 0.25, True, "7.5 W of at most 8 W"),
        ConstraintStatus("battery", "W", math.inf, None, math.nan, math.inf, False, "empty"),
    ),
    battery=BatteryStatus(3600.0 * 7, 3600.0, 1200.0, 9.0, math.inf),
    window=WINDOW,
    errors=3,
    windows=40,
    board_energy=BoardEnergy(80.0, 200.0, -1.0),
)

amounts = st.floats(1e-6, 1e6)


def plain(message: Message) -> Any:
    """``message`` as another JSON reader has it, which knows neither infinity nor NaN."""
    return json.loads(write(message), parse_constant=pytest.fail)


def test_power_is_in_the_units_that_its_names_say() -> None:
    power = plain(Power.of(STATUS))
    assert (power["age_ms"], power["time_constant_ms"]) == pytest.approx((30.0, 6.6))
    assert (power["static_w"], power["dynamic_w"], power["other_w"]) == (5.0, 2.0, 0.5)
    assert power["rails"] == {"VDD_IN": 7.5, "VDD_SOC": -0.02}
    assert power["mode"] == {
        "id": 2,
        "name": "15W",
        "clocks": "gpu612",
        "jetson_clocks": False,
        "throttling": ["fan at its limit"],
    }
    assert power["board_energy_j"] == {"attributed": 80.0, "idle": 200.0, "other": -1.0}


def test_the_check_of_attribution_is_shown() -> None:
    segments = (SegmentStatus("m", 0, 1.25, 0.01), SegmentStatus("m", 1, 1.0, None))
    status = AttributionStatus(True, 0.97, 0.031, segments)
    power = plain(Power.of(dataclasses.replace(STATUS, attribution=status)))
    assert power["attribution"] == {
        "explained": True,
        "explained_share": 0.97,
        "delay_ms": pytest.approx(31.0),
        "segments": [
            {"model": "m", "segment": 0, "factor": 1.25, "relative_sd": 0.01},
            {"model": "m", "segment": 1, "factor": 1.0, "relative_sd": None},
        ],
    }
    assert plain(Power.of(STATUS))["attribution"] is None


def test_what_has_no_limit_is_null() -> None:
    power = plain(Power.of(STATUS))
    battery, cap = power["constraints"][1], power["constraints"][0]
    assert battery["price_per_j"] is None
    assert (battery["limit"], battery["value"], battery["headroom"]) == (None, None, None)
    assert (cap["price_per_j"], cap["headroom"], cap["binding"]) == (0.25, 0.5, True)
    assert power["battery"] == {
        "left_wh": 7.0, "reserve_wh": 1.0, "last_s": 1200.0, "allowed_w": 9.0, "lasts_s": None,
    }  # fmt: skip
    assert plain(Window.of(WINDOW))["price_per_j"] is None


def test_an_unknown_power_is_all_null() -> None:
    nothing = dataclasses.replace(
        STATUS, source=None, watts=None, rails={}, age=None, battery=None, window=None
    )
    power = plain(Power.of(nothing))
    for name in ("source", "watts", "age_ms", "battery", "window"):
        assert power[name] is None


def test_a_settled_request_comes_back_as_it_was_sent() -> None:
    receipt = Receipt(
        LatencyOutcome(None, 0.5, 0.25, 0.5, None),
        AccuracyOutcome(None, 0.9, 0.9, None, None),
        EnergyOutcome(0.5, 0.25, 0.125, "attributed", "ina3221", "module_input", True),
    )
    settled = Settled("a-1", "m", "camera", 2, "confident", receipt, True)
    document = plain(SettledRequest.of(settled))
    assert document["receipt"]["energy_mj"]["value"] == 250.0
    raw = json.dumps({**document, "weather": "fine"}).encode()
    assert read_answer(SettledRequest, raw).to(Settled) == settled


@given(
    st.just(UNCHANGED) | st.none() | amounts,
    st.just(UNCHANGED)
    | st.none()
    | st.builds(Battery, st.floats(100, 1e6), st.floats(0, 50), amounts),
    st.just(UNCHANGED) | st.sampled_from(["15W", "MAXN", "2"]),
)
def test_changes_come_back_as_they_were_sent(cap: Any, battery: Any, mode: Any) -> None:
    changes = PowerChanges(cap, battery, mode)
    back = PowerChange.read(plain(PowerChange.of(changes))).changes()
    assert (back.watt_cap, back.mode) == (cap, mode)
    if not isinstance(battery, Battery):
        assert back.battery is battery
        return
    assert isinstance(back.battery, Battery)
    assert dataclasses.astuple(back.battery) == pytest.approx(dataclasses.astuple(battery))


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"watt_cap_w": 0}, "watt_cap_w"),
        ({"watt_cap_w": "12W"}, "watt_cap_w"),
        ({"battery": 8}, "battery"),
        ({"battery": {"energy_wh": 8}}, "last_s"),
        ({"battery": {"last_s": 60}}, "energy_wh"),
        ({"battery": {"energy_wh": 8, "last_s": 60, "reserve_wh": 8}}, "reserve_wh"),
        ({"battery": {"energy_wh": 8, "last_s": 60, "reserve_wh": None}}, "reserve_wh"),
        ({"battery": {"energy_wh": 8, "last_s": -60}}, "last_s"),
        ({"mode": None}, "mode"),
        ({"mode": ""}, "mode"),
        ({"mode": 2}, "mode"),
    ],
)
def test_a_wrong_change_is_refused_by_name(document: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput, match=field) as caught:
        PowerChange.read(document).changes()
    assert caught.value.field == field


@pytest.mark.parametrize(
    "document",
    [
        {"watt_cap": 12},
        {"battery": {"energy_wh": 8, "last_s": 60, "reserve": 1}},
    ],
)
def test_a_change_that_is_not_known_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(UnknownField, match="known: "):
        PowerChange.read(document).changes()
