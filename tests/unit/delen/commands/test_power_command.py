from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from typing import Any

import pytest

from delen.commands.power import _describe
from delen.commands.power_tables import apps_table, windows_csv, windows_table
from delen.core.device_status import (
    CpuStatus,
    DeviceStatus,
    FanStatus,
    UnitStatus,
    ZoneStatus,
)
from delen.core.energy_status import (
    AttributionStatus,
    BatteryStatus,
    ConstraintStatus,
    ModeStatus,
    PowerStatus,
    SegmentStatus,
    WindowStatus,
)
from delen.wire.message import Message, write
from delen.wire.power import Power, Window

STATUS = PowerStatus(
    source="ina3221x",
    scope="module_input",
    kind="measured",
    watts=None,
    rails={},
    state="degraded",
    since=12.0,
    problem="VDD_IN: Input/output error",
    warning="limits on watts are kept by model",
    age=None,
    board=None,
    mode=ModeStatus(2, "15W", "gpu612", True, ("the GPU is held back by its temperature",)),
    static=5.0,
    dynamic=2.0,
    other=None,
    time_constant=None,
    price=math.inf,
    controller="price",
    constraints=(
        ConstraintStatus("battery", "s", 60.0, 30.0, -30.0, math.inf, True, "it is used up"),
        ConstraintStatus("watt_cap", "W", 9.0, 7.0, 2.0, 0.25, False, "7 W of 9 W"),
    ),
    battery=BatteryStatus(3600.0, 1800.0, 60.0, None, None),
    window=None,
    windows=4,
)


def plain(message: Message) -> Any:
    return json.loads(write(message))


def test_a_degraded_source_is_described_with_its_problem() -> None:
    lines = _describe(plain(Power.of(STATUS))).splitlines()
    assert lines == [
        "ina3221x (module_input, measured): degraded for 12 s: VDD_IN: Input/output error",
        "power unknown",
        "warning: limits on watts are kept by model",
        "mode 2 15W, gpu612",
        "throttled: the GPU is held back by its temperature",
        "without requests 5.00 W, requests 2.00 W, other unknown",
        "price without limit (controller price)",
        "  battery: it is used up; price without limit <-",
        "  watt_cap: 7 W of 9 W; price 0.25 accuracy/J",
        "  battery: 1 Wh left, 0.5 Wh reserved, to last 1.0 min",
    ]


def test_load_and_temperature_are_shown_as_far_as_they_are_known() -> None:
    device = DeviceStatus(
        gpu=UnitStatus(0.42, 612e6),
        cpu=CpuStatus(None, 1984e6),
        emc=UnitStatus(0.25, None),
        fans=(FanStatus("pwmfan", 0.2, 1800), FanStatus("case", None, 900)),
        zones=(ZoneStatus("cpu-thermal", 51.5), ZoneStatus("tj-thermal", None, "it is gone")),
    )
    lines = _describe(plain(Power.of(replace(STATUS, device=device)))).splitlines()
    assert "GPU 42 % at 612 MHz, CPU 1984 MHz, EMC 25 %" in lines
    assert "fan pwmfan 20 %, 1800 rpm, fan case 900 rpm" in lines
    assert "temperatures in °C: cpu 51.5, tj unknown" in lines
    assert "tj-thermal: it is gone" in lines


@pytest.mark.parametrize("explained", [True, False])
def test_the_check_of_attribution_is_said_in_words(explained: bool) -> None:
    segments = (SegmentStatus("m", 0, 1.25, 0.01), SegmentStatus("m", 1, 1.0, None))
    status = AttributionStatus(explained, 0.97, 0.031, segments)
    lines = _describe(plain(Power.of(replace(STATUS, attribution=status)))).splitlines()
    check, first, second = (line for line in lines if "attribution" in line or " segment " in line)
    assert ("not yet" in check) != explained
    assert "97 %" in check
    assert "31 ms" in check
    assert "m segment 0: 1.25 x predicted, ± 2.0 %" in first
    assert "unknown" in second


def test_no_source_is_said_in_one_line() -> None:
    nothing = replace(
        STATUS, source=None, constraints=(), battery=None, windows=0, price=0.0, state="none"
    )
    assert _describe(plain(Power.of(nothing))).splitlines() == [
        "no power source: every energy is unknown",
        "price 0 accuracy/J (controller price)",
    ]


@pytest.mark.parametrize(("idle", "shown"), [(None, "-"), (4.5, "4.500 J")])
def test_a_window_that_was_not_measured_has_gaps(idle: float | None, shown: str) -> None:
    window = WindowStatus(0.0, 1.0, None, {}, 0.25, idle, None, "estimated", 0.0, "degraded")
    row = windows_table([plain(Window.of(window))]).splitlines()[1]
    assert "0.250 J" in row
    assert shown in row
    assert row.endswith("estimated")


def day(date: str | None, attributed: float, estimated: float) -> dict[str, Any]:
    return {"date": date, "attributed_wh": attributed, "estimated_wh": estimated}


def test_apps_have_a_row_each_and_days_a_column() -> None:
    head, camera, radio = apps_table(
        {
            "camera": [day("2026-11-29", 1.5, 0.5), day("2026-11-30", 1.5, 0.5)],
            "radio": [day("2026-11-30", 0.0, 0.25), day(None, 0.0, 0.5)],
            "silent": [],
        }
    ).splitlines()
    assert head.split() == ["Wh", "of", "answers", "2026-11-29", "2026-11-30", "no", "date",
                            "attributed"]  # fmt: skip
    assert camera.split() == ["camera", "2", "2", "-", "75", "%"]
    assert radio.split() == ["radio", "-", "0.25", "0.5", "0", "%"]


def test_only_the_last_days_are_columns() -> None:
    days = [day(f"2026-11-{n:02d}", 1.0, 0.0) for n in range(1, 31)]
    head, *rows = apps_table({"camera": days, "old": days[:1]}).splitlines()
    assert "2026-11-30" in head
    assert "2026-11-23" not in head
    assert len(rows) == 1


def test_without_energy_there_is_a_sentence() -> None:
    assert "no app" in apps_table({"camera": []})


def test_windows_as_csv_have_a_column_for_each_rail_and_gaps_for_what_is_unknown() -> None:
    known = WindowStatus(1.79e9, 60.0, 7.5, {"B": 1.5, "A": 6.0}, 2.0, 5.0, 0.5, "attributed",
                         0.0, "ok")  # fmt: skip
    unknown = replace(known, time=1.79e9 + 1, seconds=1.0, watts=None, rails={"A": 1.0}, idle=None,
                      price=math.inf, kind="estimated", state="degraded")  # fmt: skip
    rows = list(
        csv.DictReader(windows_csv([plain(Window.of(w)) for w in (known, unknown)]).splitlines())
    )
    assert rows[0] == {
        "time": "2026-09-21T14:13:20.000+00:00", "seconds": "60.0", "watts": "7.5",
        "attributed_j": "2.0", "idle_j": "5.0", "other_j": "0.5", "kind": "attributed",
        "price_per_j": "0.0", "state": "ok", "A_w": "6.0", "B_w": "1.5",
    }  # fmt: skip
    empty = {name for name, value in rows[1].items() if not value}
    assert empty == {"watts", "idle_j", "price_per_j", "B_w"}
    assert (rows[1]["time"], rows[1]["seconds"]) == ("2026-09-21T14:13:21.000+00:00", "1.0")
