"""A tenant's weight and priority, as the operator set them."""

from __future__ import annotations

from dataclasses import dataclass

from delen.core.bounds import HIGHEST_PRIORITY, LOWEST_PRIORITY, check_cap, check_integer
from delen.errors import InvalidInput

LEAST_WEIGHT, MOST_WEIGHT = 0.001, 1000.0


def check_weight(value: object, field: str) -> float:
    """``value`` as a weight; InvalidInput unless it can be one."""
    weight = check_cap(value, field)
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise InvalidInput(
            f"{field} is {weight:g}; it must be from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}", field
        )
    return weight


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """``weight`` is its part of the device against others'. ``priority`` is for its requests that
    name none, and the most urgent they may have. None is not set: its weight is then 1, and beside
    others its requests have priority 5 at the most. InvalidInput for values out of range."""

    weight: float | None = None
    priority: int | None = None

    def __post_init__(self) -> None:
        if self.weight is not None:
            check_weight(self.weight, "weight")
        if self.priority is not None:
            check_integer(self.priority, "priority", HIGHEST_PRIORITY, LOWEST_PRIORITY)


UNSET = TenantSettings()
