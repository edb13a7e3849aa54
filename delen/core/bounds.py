"""What a request asks for: bounds and options, checked where they are made and nowhere else.

A sentence on a bound begins with its name and says neither unit nor figure: REST has other units.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, get_args

from delen.errors import InvalidInput

OnInfeasible = Literal["reject", "best_effort"]
Encoding = Literal["fp16", "fp32", "int8"]
"""How features are sent to another node (``delen.bundle.features``)."""

DEFAULT_ENCODING: Encoding = "fp16"
"""It halves what is sent, and costs no accuracy (docs/fleet.md has the figures)."""

HIGHEST_PRIORITY = 1
LOWEST_PRIORITY = 9
DEFAULT_PRIORITY = 5
DEFAULT_TENANT = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")


def check_finite(value: object, field: str) -> float:
    """``value`` as a float; InvalidInput unless it is a finite number."""
    return _number(value, field, "a number")


def check_cap(value: object, field: str) -> float:
    """``value`` as a float; InvalidInput unless it is a finite number above 0."""
    number = check_finite(value, field)
    if number <= 0:
        raise InvalidInput(f"{field} must be above 0", field)
    return number


def check_not_negative(value: object, field: str) -> float:
    """``value`` as a float; InvalidInput unless it is a finite number of at least 0."""
    number = check_finite(value, field)
    if number < 0:
        raise InvalidInput(f"{field} must be at least 0", field)
    return number


def check_fraction(value: object, field: str) -> float:
    """``value`` as a float; InvalidInput unless it is from 0 to 1."""
    number = _number(value, field, "a fraction from 0 to 1")
    if 2 <= number <= 100:
        raise InvalidInput(
            f"{field} is {number:g}; it is a fraction: write {number / 100:g} for {number:g} %",
            field,
        )
    if not 0 <= number <= 1:
        raise InvalidInput(f"{field} is {number!r}; it must be from 0 to 1", field)
    return number


def _number(value: object, field: str, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidInput(f"{field} must be {wanted}, not {value!r}", field)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidInput(f"{field} is {number}; it must be finite", field)
    return number


def check_integer(value: object, field: str, low: int, high: int | None) -> int:
    """``value`` as an int; InvalidInput unless it is a whole number from ``low`` to ``high``."""
    allowed = f"of at least {low}" if high is None else f"from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidInput(f"{field} must be a whole number {allowed}, not {value!r}", field)
    number = int(value)
    if number < low or (high is not None and number > high):
        allowed = allowed.removeprefix("of ")
        raise InvalidInput(f"{field} is {number}; it must be {allowed}", field)
    return number


def check_name(value: object, field: str) -> str:
    """``value`` as it is; InvalidInput unless it is a name of 1 to 64 plain characters."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidInput(
            f"{field} must be 1 to 64 letters, digits or ._:/- and start with a letter or digit, "
            f"not {value!r}",
            field,
        )
    return value


def check_text(value: object, field: str, wanted: str) -> str:
    """``value`` as it is; InvalidInput unless it is a text of at least one character, and UTF-8 has
    them all."""
    if isinstance(value, str) and value and value.encode(errors="ignore").decode() == value:
        return value
    raise InvalidInput(f"{field} must be {wanted}, not {value!r}", field)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Caps on latency (seconds) and energy (joules) and a floor on accuracy (0 to 1).

    None means not set. Raises InvalidInput naming the field that is wrong.
    """

    max_latency: float | None = None
    min_accuracy: float | None = None
    max_energy: float | None = None

    def __post_init__(self) -> None:
        if self.max_latency is not None:
            self._set("max_latency", check_cap(self.max_latency, "max_latency"))
        if self.min_accuracy is not None:
            self._set("min_accuracy", check_fraction(self.min_accuracy, "min_accuracy"))
        if self.max_energy is not None:
            self._set("max_energy", check_cap(self.max_energy, "max_energy"))

    def _set(self, field: str, value: float) -> None:
        object.__setattr__(self, field, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a request says of itself beside its bounds.

    ``priority`` 1 is served first, 9 last; None is the tenant's, and 5 where it has none.
    ``top_k`` is how many predictions the answer lists.
    ``on_infeasible="best_effort"`` runs the nearest feasible plan where ``"reject"`` refuses.
    ``probabilities`` asks for the probability of every class. ``tenant`` is counted in the
    metrics, and its energy budget pays; ``tenant`` and ``stream`` come back with the answer.
    Where it is not confident up to exit ``suspend_at`` it ends there, with its features in
    ``encoding`` for another node.
    """

    tenant: str = DEFAULT_TENANT
    stream: str | None = None
    priority: int | None = None
    top_k: int = 1
    on_infeasible: OnInfeasible = "reject"
    probabilities: bool = False
    suspend_at: int | None = None
    encoding: Encoding = DEFAULT_ENCODING

    def __post_init__(self) -> None:
        check_name(self.tenant, "tenant")
        if self.stream is not None:
            check_name(self.stream, "stream")
        if self.priority is not None:
            check_integer(self.priority, "priority", HIGHEST_PRIORITY, LOWEST_PRIORITY)
        check_integer(self.top_k, "top_k", 1, None)
        if self.suspend_at is not None:
            check_integer(self.suspend_at, "suspend_at", 0, None)
        if self.encoding not in get_args(Encoding):
            raise InvalidInput(
                f"encoding must be one of {', '.join(get_args(Encoding))}, not {self.encoding!r}",
                "encoding",
            )
        if self.on_infeasible not in get_args(OnInfeasible):
            raise InvalidInput(
                f"on_infeasible must be one of {', '.join(get_args(OnInfeasible))}, "
                f"not {self.on_infeasible!r}",
                "on_infeasible",
            )
        if not isinstance(self.probabilities, bool):
            raise InvalidInput(
                f"probabilities must be true or false, not {self.probabilities!r}", "probabilities"
            )
