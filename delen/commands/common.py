"""What several commands share: bounds on the command line, and the client."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from delen.errors import TraceError

if TYPE_CHECKING:
    from delen.simulate.trace import Trace

LATENCIES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
TIMES = {**LATENCIES, "min": 60.0, "h": 3600.0}
ENERGIES = {"uJ": 1e-6, "mJ": 1e-3, "J": 1.0}
_QUANTITY = re.compile(r"\s*([+-]?[0-9.]+(?:e[+-]?[0-9]+)?)\s*([A-Za-z]+)\s*")


def quantity(units: dict[str, float]) -> Callable[[str], float]:
    """A reader of numbers with one of ``units``, such as ``20ms``, into the base unit."""

    def read(text: str) -> float:
        match = _QUANTITY.fullmatch(text)
        if match is None or match[2] not in units:
            known = ", ".join(units)
            raise argparse.ArgumentTypeError(f"{text!r} must be a number with a unit ({known})")
        try:
            return float(Decimal(match[1]) * Decimal(repr(units[match[2]])))
        except ArithmeticError:
            raise argparse.ArgumentTypeError(f"{match[1]!r} is not a number") from None

    return read


def seed(text: str) -> int:
    """A reader of seeds of random numbers."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 0")
    return int(text)


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
    bounds.add_argument("--min-accuracy", type=float, metavar="0.9")
    bounds.add_argument("--max-energy", type=quantity(ENERGIES), metavar="50mJ")


def add_connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="http://HOST:PORT or unix:///PATH; by default it is found")
    parser.add_argument("--json", action="store_true", help="print JSON")


def milli(value: float | None, unit: str) -> str:
    """A figure in thousandths of its unit, or that it is unknown."""
    return "unknown" if value is None else f"{1e3 * value:.3g} m{unit}"
