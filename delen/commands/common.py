"""What several commands share: readers of options' values, bounds, and the client.

A reader refuses a wrong value as wrong usage, so argparse names the option.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from delen.core.bounds import check_cap, check_fraction, check_name
from delen.core.numbers import read_number, read_whole
from delen.errors import ConfigError, InvalidInput, TraceError

if TYPE_CHECKING:
    from delen.simulate.trace import Trace

LATENCIES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
TIMES = {**LATENCIES, "min": 60.0, "h": 3600.0}
ENERGIES = {"uJ": 1e-6, "mJ": 1e-3, "J": 1.0}
T = TypeVar("T")
_QUANTITY = re.compile(r"\s*([+-]?[0-9.]+(?:e[+-]?[0-9]+)?)\s*([A-Za-z]+)\s*")


def quantity(units: dict[str, float], *, zero: bool = False) -> Callable[[str], float]:
    """A reader of numbers with one of ``units``, such as ``20ms``, into the base unit: finite, and
    above 0 unless ``zero`` may be given, too."""

    def read(text: str) -> float:
        match = _QUANTITY.fullmatch(text)
        if match is None or match[2] not in units:
            known = ", ".join(units)
            raise argparse.ArgumentTypeError(f"{text!r} must be a number with a unit ({known})")
        try:
            value = float(Decimal(match[1]) * Decimal(repr(units[match[2]])))
        except ArithmeticError:
            raise argparse.ArgumentTypeError(f"{match[1]!r} is not a number") from None
        if not (0 < value < math.inf or (zero and value == 0)):
            least = "at least 0" if zero else "above 0"
            raise argparse.ArgumentTypeError(f"{text!r} must be finite and {least}")
        return value

    return read


def number(text: str) -> float:
    """A reader of numbers."""
    try:
        return read_number(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number") from None


def positive(text: str) -> float:
    """A reader of finite numbers above 0."""
    return _checked(text, read_number, check_cap)


def fraction(text: str) -> float:
    """A reader of numbers from 0 to 1."""
    return _checked(text, read_number, check_fraction)


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A reader of whole numbers from ``low`` to ``high``."""
    allowed = f"of at least {low}" if high is None else f"from {low} to {high}"

    def read(text: str) -> int:
        try:
            value = read_whole(text)
            if value < low or (high is not None and value > high):
                raise ValueError
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number {allowed}") from None
        return value

    return read


def tenant(text: str) -> str:
    """A reader of names of tenants."""
    return _checked(text, str, check_name)


def address(text: str) -> str:
    """A reader of a daemon's address."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # read, so that a wrong one is found
        place = {"unix": parts.path, "http": parts.hostname, "https": parts.hostname}
        if place.get(parts.scheme):
            return text
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"{text!r} must be http://HOST:PORT, https://HOST:PORT or unix:///PATH"
    )


def _checked(text: str, read: Callable[[str], object], check: Callable[[object, str], T]) -> T:
    try:
        return check(read(text), repr(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number") from None
    except InvalidInput as error:
        raise argparse.ArgumentTypeError(str(error)) from None


seed = whole(0)
MOST_SEEDS = 1000


def check_once(names: Sequence[str], option: str) -> None:
    """ConfigError if ``option`` gives a name twice."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{twice[0]} is given twice with {option}")


def read_requests(file: Path) -> Trace:
    """The trace in ``file``; TraceError, too, where it has no requests."""
    from delen.simulate.trace import read_trace

    trace = read_trace(file)
    if not len(trace):
        raise TraceError(f"{file}: it has a header and no requests")
    return trace


def add_bounds(parser: argparse.ArgumentParser) -> None:
    bounds = parser.add_argument_group("bounds")
    bounds.add_argument("--max-latency", type=quantity(LATENCIES), metavar="20ms")
    bounds.add_argument("--min-accuracy", type=fraction, metavar="0.9")
    bounds.add_argument("--max-energy", type=quantity(ENERGIES), metavar="50mJ")


def add_connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", type=address, help="http://HOST:PORT or unix:///PATH; by default it is found"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def milli(value: float | None, unit: str) -> str:
    """A figure in thousandths of its unit, or that it is unknown."""
    return "unknown" if value is None else f"{1e3 * value:.3g} m{unit}"
