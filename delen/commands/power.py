"""``delen power``: watts, where they go, what limits them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any, TypeVar

from delen.commands.common import add_connection, quantity
from delen.commands.power_tables import apps_table, windows_csv, windows_table
from delen.core.energy_status import (
    LONGEST_HISTORY,
    SHORTEST_HISTORY,
    UNCHANGED,
    Battery,
    Unchanged,
)
from delen.errors import ConfigError, InvalidInput
from delen.sdk.client import Client
from delen.wire.message import WattHours

_WATTS = {"mW": 1e-3, "W": 1.0}
_STORED = {"J": 1.0, "kJ": 1e3, "Wh": WattHours.over}
_TIMES = {"s": 1.0, "min": 60.0, "h": 3600.0}
_DEFAULT_HISTORY = 60.0
_DEFAULT_SINCE = 600.0

Read = TypeVar("Read")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show the device's power, its parts and its limits; or change the limits.\n"
        "The value none removes a limit. Changes last until the daemon stops."
    )
    parser.epilog = (
        "example: delen power --watt-cap 12W\n"
        "         delen power --battery 8Wh --reserve 1Wh --last 40min\n"
        "         delen power --csv --since 2h > power.csv"
    )
    parser.add_argument(
        "--watt-cap", type=_or_none(quantity(_WATTS)), default=UNCHANGED, metavar="12W|none"
    )
    battery = parser.add_argument_group("battery")
    battery.add_argument(
        "--battery",
        type=_or_none(quantity(_STORED)),
        default=UNCHANGED,
        metavar="8Wh|none",
        help="energy in the battery now",
    )
    battery.add_argument(
        "--reserve",
        type=quantity(_STORED, zero=True),
        metavar="1Wh",
        help="energy that must be left (default: 0)",
    )
    battery.add_argument(
        "--last", type=quantity(_TIMES), metavar="40min", help="how long the battery must last"
    )
    parser.add_argument("--mode", default=UNCHANGED, metavar="NAME", help="switch the power mode")
    parser.add_argument(
        "--history",
        type=_span,
        nargs="?",
        const=_DEFAULT_HISTORY,
        metavar="60s",
        help="show the latest accounting windows instead",
    )
    parser.add_argument(
        "--csv", action="store_true", help="print past accounting windows as CSV instead"
    )
    parser.add_argument(
        "--since",
        type=_span,
        metavar="2h",
        help="how far --csv goes back, up to 24 h (default: 10min)",
    )
    parser.add_argument(
        "--apps", action="store_true", help="show the energy of each app by day instead"
    )
    add_connection(parser)


def _or_none(read: Callable[[str], Read]) -> Callable[[str], Read | None]:
    return lambda text: None if text == "none" else read(text)


def _span(text: str) -> float:
    seconds = quantity(_TIMES)(text)
    if not SHORTEST_HISTORY <= seconds <= LONGEST_HISTORY:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be from {SHORTEST_HISTORY:g} s to {LONGEST_HISTORY / 3600:g} h"
        )
    return seconds


def run(options: argparse.Namespace) -> int:
    battery = _battery(options)
    changes = {"watt_cap": options.watt_cap, "battery": battery, "mode": options.mode}
    given = {name: value for name, value in changes.items() if value is not UNCHANGED}
    _check_shown(options, is_change=bool(given))
    with Client(options.url) as client:
        if options.csv:
            print(windows_csv(client.power_history(options.since or _DEFAULT_SINCE)))
            return 0
        if options.apps:
            days = {app: tenant["days"] for app, tenant in client.tenants().items()}
            print(json.dumps(days) if options.json else apps_table(days))
            return 0
        if options.history is not None:
            windows = client.power_history(options.history)
            print(json.dumps(windows) if options.json else windows_table(windows))
            return 0
        description = client.set_power(**given) if given else client.power()
    print(json.dumps(description) if options.json else _describe(description))
    return 0


def _check_shown(options: argparse.Namespace, is_change: bool) -> None:
    """ConfigError where the options ask for two things at once."""
    shown = [f"--{name}" for name in ("history", "csv", "apps") if getattr(options, name)]
    if shown and is_change:
        raise ConfigError(f"{shown[0]} only shows; give it without limits and without --mode")
    if options.csv and options.json:
        shown.append("--json")
    if len(shown) > 1:
        raise ConfigError(f"give only one of {' and '.join(shown)}")
    if options.since is not None and not options.csv:
        raise ConfigError("--since needs --csv")


def _battery(options: argparse.Namespace) -> Battery | Unchanged | None:
    """ConfigError where the options say half of it."""
    if options.battery is UNCHANGED or options.battery is None:
        if options.reserve is not None or options.last is not None:
            raise ConfigError("--reserve and --last need --battery, the energy in it now")
        battery: Unchanged | None = options.battery
        return battery
    if options.last is None:
        raise ConfigError("--battery needs --last, how long it must last")
    try:
        return Battery(options.battery, options.reserve or 0.0, options.last)
    except InvalidInput as error:
        raise ConfigError(f"--battery and --reserve: {error}") from error


def _describe(power: dict[str, Any]) -> str:
    return "\n".join([*_source(power), *_device(power["device"]), *_parts(power), *_control(power)])


def _source(power: dict[str, Any]) -> list[str]:
    if power["source"] is None:
        return ["no power source: every energy is unknown"]
    mode = power["mode"]
    number = "" if mode["id"] is None else f"{mode['id']} "
    clocks = f", {mode['clocks']}" if mode["clocks"] else ""
    rails = ", ".join(f"{name} {_watts(watts)}" for name, watts in power["rails"].items())
    board = f" on {power['board']}" if power["board"] else ""
    problem = f": {power['problem']}" if power["problem"] else ""
    return [
        f"{power['source']} ({power['scope']}, {power['kind']}){board}: "
        f"{power['state']} for {power['since_s']:.0f} s{problem}",
        f"power {_watts(power['watts'])}{f' ({rails})' if rails else ''}",
        *([f"warning: {power['warning']}"] if power["warning"] else []),
        f"mode {number}{mode['name']}{clocks}",
        *(f"throttled: {sentence}" for sentence in mode["throttling"]),
    ]


def _device(device: dict[str, Any]) -> list[str]:
    """Load and clocks, fans, temperatures: a line each for what is known of them."""
    units = [(name.upper(), device[name]) for name in ("gpu", "cpu", "emc") if device[name]]
    loads = [
        " at ".join(
            filter(None, (_percent(unit["load"]), _known(unit["clock_mhz"], ".0f", " MHz")))
        )
        for _, unit in units
    ]
    fans = [
        f"fan {fan['name']} "
        + ", ".join(filter(None, (_percent(fan["speed"]), _known(fan["rpm"], ".0f", " rpm"))))
        for fan in device["fans"]
    ]
    zones = [
        f"{zone['name'].removesuffix('-thermal')} {_known(zone['celsius'], '.1f', '') or 'unknown'}"
        for zone in device["zones"]
    ]
    lines = [
        ", ".join(f"{name} {load}" for (name, _), load in zip(units, loads, strict=True) if load),
        ", ".join(fans),
        f"temperatures in °C: {', '.join(zones)}" if zones else "",
        *(f"{zone['name']}: {zone['problem']}" for zone in device["zones"] if zone["problem"]),
    ]
    return [line for line in lines if line]


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.0f} %"


def _known(value: float | None, how: str, unit: str) -> str:
    return "" if value is None else f"{value:{how}}{unit}"


def _parts(power: dict[str, Any]) -> list[str]:
    if power["windows"] == 0:
        return []
    parts = (("without requests", "static_w"), ("requests", "dynamic_w"), ("other", "other_w"))
    lines = [", ".join(f"{name} {_watts(power[key])}" for name, key in parts)]
    return [*lines, *_attribution(power["attribution"])]


def _attribution(check: dict[str, Any] | None) -> list[str]:
    """What may be called attributed, and why."""
    if check is None:
        return []
    share, delay = check["explained_share"], check["delay_ms"]
    state = "readings are as predicted" if check["explained"] else "readings are not yet explained"
    details = [
        *([] if share is None else [f"{100 * share:.0f} % of their variation"]),
        *([] if delay is None else [f"{delay:.0f} ms behind the power"]),
    ]
    lines = [f"attribution: {state}" + (f" ({', '.join(details)})" if details else "")]
    for each in check["segments"]:
        sd = each["relative_sd"]
        known = "unknown" if sd is None else f"± {200 * sd:.1f} %"
        name = f"  {each['model']} segment {each['segment']}"
        lines.append(f"{name}: {each['factor']:.3g} x predicted, {known}")
    return lines


def _control(power: dict[str, Any]) -> list[str]:
    lines = [f"price {_price(power['price_per_j'])} (controller {power['controller']})"]
    for constraint in power["constraints"]:
        mark = " <-" if constraint["binding"] else ""
        lines.append(
            f"  {constraint['name']}: {constraint['explanation']}; "
            f"price {_price(constraint['price_per_j'])}{mark}"
        )
    battery = power["battery"]
    if battery is not None:
        lasts = battery["lasts_s"]
        reach = "" if lasts is None else f", at this draw for {lasts / 60:.1f} min"
        lines.append(
            f"  battery: {battery['left_wh']:.3g} Wh left, "
            f"{battery['reserve_wh']:.3g} Wh reserved, "
            f"to last {battery['last_s'] / 60:.1f} min{reach}"
        )
    return lines


def _price(price: float | None) -> str:
    return "without limit" if price is None else f"{price:.4g} accuracy/J"


def _watts(watts: float | None) -> str:
    return "unknown" if watts is None else f"{watts:.2f} W"
