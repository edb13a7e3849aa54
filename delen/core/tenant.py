"""What a tenant is to the others: its weight and its priority, as the operator set them."""

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
    """``weight`` is its part of the device against others', ``priority`` that of its requests
    which name none, and the most urgent they may have. None: not set; it then counts 1, and its
    requests have 5 at the most beside those of others. InvalidInput for what cannot be."""

    weight: float | None = None
    priority: int | None = None

    def __post_init__(self) -> None:
        if self.weight is not None:
            check_weight(self.weight, "weight")
        if self.priority is not None:
            check_integer(self.priority, "priority", HIGHEST_PRIORITY, LOWEST_PRIORITY)


UNSET = TenantSettings()
