"""Power and settled requests on the wire: joules, watts, watt-hours, seconds, ms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from delen.core.bounds import check_cap, check_not_negative
from delen.core.energy_status import (
    UNCHANGED,
    Battery,
    BatteryStatus,
    BoardEnergy,
    ConstraintStatus,
    ModeStatus,
    PowerChanges,
    PowerStatus,
    Settled,
    WindowStatus,
)
from delen.errors import InvalidInput
from delen.wire.answers import price_to_json, receipt_from_json, receipt_to_json
from delen.wire.requests import check_known, to_milli

JOULES_PER_WH = 3600.0


def power_to_json(status: PowerStatus) -> dict[str, Any]:
    """What ``GET /v1/power`` answers. A price of null is one without limit."""
    window = status.window
    return {
        "source": status.source,
        "scope": status.scope,
        "kind": status.kind,
        "watts": finite(status.watts),
        "rails": _finite_rails(status.rails),
        "state": status.state,
        "since_s": status.since,
        "problem": status.problem,
        "age_ms": to_milli(status.age),
        "board": status.board,
        "mode": _mode_to_json(status.mode),
        "static_w": finite(status.static),
        "dynamic_w": finite(status.dynamic),
        "other_w": finite(status.other),
        "time_constant_ms": to_milli(status.time_constant),
        "price_per_j": price_to_json(status.price),
        "controller": status.controller,
        "constraints": [_constraint_to_json(constraint) for constraint in status.constraints],
        "battery": None if status.battery is None else _battery_to_json(status.battery),
        "window": None if window is None else window_to_json(window),
        "errors": status.errors,
        "windows": status.windows,
        "board_energy_j": _board_to_json(status.board_energy),
    }


def finite(value: float | None) -> float | None:
    """JSON has no infinity and no NaN: what is neither a number nor known is null."""
    return value if value is not None and math.isfinite(value) else None


def _finite_rails(rails: Mapping[str, float]) -> dict[str, float | None]:
    return {name: finite(watts) for name, watts in rails.items()}


def _mode_to_json(mode: ModeStatus) -> dict[str, Any]:
    return {
        "id": mode.id,
        "name": mode.name,
        "clocks": mode.clocks,
        "jetson_clocks": mode.jetson_clocks,
        "throttling": list(mode.throttling),
    }


def _constraint_to_json(constraint: ConstraintStatus) -> dict[str, Any]:
    return {
        "name": constraint.name,
        "unit": constraint.unit,
        "limit": finite(constraint.limit),
        "value": finite(constraint.value),
        "headroom": finite(constraint.headroom),
        "price_per_j": price_to_json(constraint.price),
        "binding": constraint.binding,
        "explanation": constraint.explanation,
    }


def _battery_to_json(battery: BatteryStatus) -> dict[str, Any]:
    return {
        "left_wh": battery.left / JOULES_PER_WH,
        "reserve_wh": battery.reserve / JOULES_PER_WH,
        "last_s": battery.last,
        "allowed_w": finite(battery.allowed),
        "lasts_s": finite(battery.lasts),
    }


def _board_to_json(energy: BoardEnergy) -> dict[str, float]:
    return {"attributed": energy.attributed, "idle": energy.idle, "other": energy.other}


def window_to_json(window: WindowStatus) -> dict[str, Any]:
    """One entry of ``GET /v1/power/history``."""
    return {
        "time": window.time,
        "seconds": window.seconds,
        "watts": finite(window.watts),
        "rails": _finite_rails(window.rails),
        "attributed_j": window.attributed,
        "idle_j": finite(window.idle),
        "other_j": finite(window.other),
        "kind": window.kind,
        "price_per_j": price_to_json(window.price),
        "state": window.state,
    }


def settled_to_json(settled: Settled) -> dict[str, Any]:
    """What ``GET /v1/requests/{id}`` answers."""
    return {
        "request_id": settled.request_id,
        "model": settled.model,
        "tenant": settled.tenant,
        "exit": settled.exit,
        "reason": settled.reason,
        "settled": settled.settled,
        "receipt": receipt_to_json(settled.receipt),
    }


def settled_from_json(document: Mapping[str, Any]) -> Settled:
    """What ``settled_to_json`` wrote. Fields that a newer daemon adds are let be."""
    return Settled(
        request_id=document["request_id"],
        model=document["model"],
        tenant=document["tenant"],
        exit=document["exit"],
        reason=document["reason"],
        receipt=receipt_from_json(document["receipt"]),
        settled=document["settled"],
    )


def changes_to_json(changes: PowerChanges) -> dict[str, Any]:
    """The body of ``PUT /v1/power``: what is kept is left out."""
    document: dict[str, Any] = {}
    if changes.watt_cap is not UNCHANGED:
        document["watt_cap_w"] = changes.watt_cap
    if changes.battery is not UNCHANGED:
        battery = changes.battery
        document["battery"] = battery and {
            "energy_wh": battery.joules / JOULES_PER_WH,
            "reserve_wh": battery.reserve / JOULES_PER_WH,
            "last_s": battery.last,
        }
    if changes.mode is not UNCHANGED:
        document["mode"] = changes.mode
    return document


def parse_changes(document: Mapping[str, Any]) -> PowerChanges:
    """What ``PUT /v1/power`` asks to change; null takes a limit away. InvalidInput names the
    field that is wrong."""
    check_known(document, "watt_cap_w", "battery", "mode")
    cap, battery, mode = (
        document.get(name, UNCHANGED) for name in ("watt_cap_w", "battery", "mode")
    )
    if cap is not None and cap is not UNCHANGED:
        cap = check_cap(cap, "watt_cap_w", "watts")
    if battery is not None and battery is not UNCHANGED:
        battery = _parse_battery(battery)
    if mode is not UNCHANGED and (not isinstance(mode, str) or not mode):
        raise InvalidInput(f"mode must be the name or number of a mode, not {mode!r}", "mode")
    return PowerChanges(cap, battery, mode)


def _parse_battery(given: object) -> Battery:
    fields = read_object(given, "battery", "energy_wh", "reserve_wh", "last_s")
    require(fields, "energy_wh", "last_s")
    energy = check_cap(fields["energy_wh"], "energy_wh", "watt-hours")
    reserve = check_not_negative(fields.get("reserve_wh", 0.0), "reserve_wh", "watt-hours")
    if reserve >= energy:
        raise InvalidInput(
            f"reserve_wh is {reserve:g}; it must be below energy_wh, which is {energy:g}",
            "reserve_wh",
        )
    last = check_cap(fields["last_s"], "last_s", "seconds")
    return Battery(energy * JOULES_PER_WH, reserve * JOULES_PER_WH, last)


def read_object(given: object, name: str, *known: str) -> Mapping[str, Any]:
    """``given`` with no other keys than ``known``; InvalidInput naming ``name`` if it is none."""
    if not isinstance(given, Mapping):
        raise InvalidInput(
            f"{name} must be null or an object with {', '.join(known)}, not {given!r}", name
        )
    check_known(given, *known)
    return given


def require(fields: Mapping[str, Any], *names: str) -> None:
    """InvalidInput for the first of ``names`` that is not there."""
    for name in names:
        if name not in fields:
            raise InvalidInput(f"the body lacks {name!r}", name)
