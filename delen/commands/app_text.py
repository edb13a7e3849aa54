"""An app on the command line of ``delen trace``: ``NAME:KEY=VALUE,KEY=VALUE``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from math import inf, isfinite
from pathlib import Path
from typing import Any, TypeVar

from delen.commands.common import ENERGIES, TIMES, quantity, whole
from delen.core.bounds import (
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    Bounds,
    check_fraction,
    check_name,
)
from delen.core.numbers import read_number
from delen.errors import InvalidInput
from delen.simulate.apps import App, Mixed
from delen.simulate.arrivals import Arrivals, Bursts, Camera, Poisson, Recorded, Window

Value = TypeVar("Value")

OWN_KEYS = {
    "poisson": (),
    "bursts": ("peak", "share", "dwell"),
    "camera": ("phase", "jitter"),
    "recorded": ("record", "step"),
}
"""The keys that only one kind of arrivals has."""


def read_app(text: str) -> App:
    """The app that ``text`` describes; ArgumentTypeError names the key that is wrong."""
    head, _, rest = text.partition("=")
    name, colon, first = head.rpartition(":")
    if not colon or not name:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be NAME:KEY=VALUE,KEY=VALUE, such as camera:rate=30,max-latency=20ms"
        )
    try:
        check_name(name, "its name")
        return _app(name, *_read(f"{first}={rest}"))
    except (ValueError, InvalidInput, argparse.ArgumentTypeError) as error:
        raise argparse.ArgumentTypeError(f"{name}: {error}") from None


def _read(text: str) -> tuple[dict[str, Any], tuple[Mixed, ...]]:
    """The keys of the app, and its bounds: those behind each ``part``, or all as one."""
    once: dict[str, Any] = {}
    parts: list[dict[str, Any]] = [{}]
    for pair in text.split(","):
        key, equals, value = (piece.strip() for piece in pair.partition("="))
        if not pair.strip():
            raise ValueError("KEY=VALUE is missing before or behind a comma")
        if key not in _READERS:
            raise ValueError(f"unknown key {key!r}; known: {', '.join(_READERS)}")
        if not equals or not value:
            raise ValueError(f"{key} has no value; write {key}=VALUE")
        if key == "part":
            parts.append({})
        into = parts[-1] if key in _OF_PARTS else once
        if key in into:
            often = "once a part" if key in _OF_PARTS else "once"
            raise ValueError(f"{key} is given twice; it may be given {often}")
        into[key] = _named(key, _READERS[key], value)
    whole, *behind = parts
    if whole and behind:
        raise ValueError(f"{next(iter(whole))} comes before the first part; put it behind one")
    mixed = tuple(Mixed(each.pop("part", 1.0), _bounds(each)) for each in behind or [whole])
    return once, mixed


def _bounds(given: Mapping[str, float]) -> Bounds:
    return Bounds(**{key.replace("-", "_"): value for key, value in given.items()})


def _app(name: str, given: dict[str, Any], mix: tuple[Mixed, ...]) -> App:
    model, priority, streams = (given.pop(key, None) for key in ("model", "priority", "streams"))
    start, end = given.pop("from", 0.0), given.pop("to", inf)
    if streams is not None:
        _named("streams", lambda last: check_name(last, "a stream's name"), f"{name}-{streams - 1}")
    if not start < end:
        raise ValueError(f"to is {end:g} s; it must be after from, which is {start:g} s")
    arrivals = _arrivals(given)
    if start > 0 or end < inf:
        arrivals = Window(arrivals, start, end)
    return App(name, arrivals, mix, model, priority, streams)


def _arrivals(given: dict[str, Any]) -> Arrivals:
    kind, rate = given.pop("arrivals", "poisson"), given.pop("rate", None)
    for other, keys in OWN_KEYS.items():
        if other != kind and (key := next((key for key in keys if key in given), None)):
            raise ValueError(f"{key} goes with arrivals={other}; arrivals is {kind}")
    if kind == "recorded":
        if "record" not in given:
            raise ValueError("record is missing; it is the file that arrivals=recorded follows")
        record = given["record"]
        return Recorded(sum(record) / len(record) if rate is None else rate, **given)
    if rate is None:
        raise ValueError("rate is missing; give the requests a second, such as rate=30")
    if kind == "camera":
        return Camera(rate, **given)
    return Bursts(rate, **given) if kind == "bursts" else Poisson(rate)


def _named(key: str, read: Callable[[str], Value], text: str) -> Value:
    try:
        return read(text)
    except (ValueError, InvalidInput, argparse.ArgumentTypeError) as error:
        said = str(error)
        raise ValueError(said if said.startswith(key) else f"{key}: {said}") from None


def _number(text: str) -> float:
    try:
        return read_number(text)
    except ValueError:
        raise ValueError(f"{text!r} must be a number") from None


def _above_0(text: str) -> float:
    number = _number(text)
    if not (number > 0 and isfinite(number)):
        raise ValueError(f"{text} must be finite and above 0")
    return number


def _seconds(text: str) -> float:
    return quantity(TIMES, zero=True)(text)


def _kind(text: str) -> str:
    if text not in OWN_KEYS:
        raise ValueError(f"{text!r} must be one of {', '.join(OWN_KEYS)}")
    return text


def _record(text: str) -> tuple[float, ...]:
    """Rates, a line each."""
    file, rates = Path(text), []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            rates.append(read_number(line))
            if not 0 <= rates[-1] < inf:
                raise ValueError
        except ValueError:
            raise ValueError(
                f"{file}, line {number}: {line!r} must be a number of at least 0, the requests a "
                "second"
            ) from None
    if not sum(rates) > 0:
        raise ValueError(f"{file} must have a line with a rate above 0")
    return tuple(rates)


_OF_PARTS: dict[str, Callable[[str], Any]] = {
    "part": _above_0,
    "max-latency": quantity(TIMES),
    "min-accuracy": lambda text: check_fraction(_number(text), "it"),
    "max-energy": quantity(ENERGIES),
}
_READERS: dict[str, Callable[[str], Any]] = {
    "rate": _above_0,
    "arrivals": _kind,
    "peak": _above_0,
    "share": _above_0,
    "dwell": _seconds,
    "phase": _seconds,
    "jitter": _seconds,
    "record": _record,
    "step": _seconds,
    "from": _seconds,
    "to": _seconds,
    "streams": whole(1),
    "model": lambda text: check_name(text, "it"),
    "priority": whole(HIGHEST_PRIORITY, LOWEST_PRIORITY),
    **_OF_PARTS,
}
