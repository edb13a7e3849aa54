"""How evenly a device was shared out: Jain's index over what tenants got of their fair parts.

Jain, Chiu and Hawe ("A quantitative measure of fairness and discrimination for resource allocation
in shared computer systems", DEC-TR-301, 1984) compare ``x_i``, what each got over what it should
have got: ``(sum x)^2 / (n sum x^2)`` is 1 where all ``x`` are alike, and k/n where k of n have
everything. What a tenant should have got is here its part by weighted max-min fairness: of all that
was used nobody needs more than it asked for, and what one leaves is dealt out to the others by
weight. So an app that asks little and gets it is treated as well as one that asks much and gets
its share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Use:
    """What a tenant of ``weight`` used (seconds or joules; NaN where that is unknown), how many
    requests it was used on, and how many were turned away because of others."""

    weight: float
    used: float
    served: int
    turned_away: int


@dataclass(frozen=True, slots=True)
class Fairness:
    """Jain's indices by device time and by energy; None where nothing was used or it is unknown."""

    time: float | None
    energy: float | None


def fairness(uses: Iterable[Use]) -> float | None:
    """Jain's index over what was used of the fair parts of all that requested something."""
    asked = [use for use in uses if use.served or use.turned_away]
    total, served = sum(use.used for use in asked), sum(use.served for use in asked)
    if not total > 0:
        return None
    usual = total / max(1, served)
    parts = fair_parts(total, [_demand(use, usual) for use in asked], [use.weight for use in asked])
    return jain([use.used / part for use, part in zip(asked, parts, strict=True)])


def _demand(use: Use, usual: float) -> float:
    """What its requests would have used if all had been served, the others like these."""
    each = use.used / use.served if use.served and use.used else usual
    return max(use.used, each * (use.served + use.turned_away))


def fair_parts(total: float, demands: Sequence[float], weights: Sequence[float]) -> list[float]:
    """``total``, which is no more than the ``demands`` together, dealt out by weighted max-min
    fairness."""
    parts = list(demands)
    open_rows = sorted(range(len(parts)), key=lambda row: demands[row] / weights[row])
    left, weight = total, math.fsum(weights)
    for place, row in enumerate(open_rows):
        level = left / weight
        if demands[row] > level * weights[row]:
            for other in open_rows[place:]:
                parts[other] = level * weights[other]
            break
        left -= demands[row]
        weight -= weights[row]
    return parts


def jain(values: Sequence[float]) -> float | None:
    """Jain's index; None where nobody has anything."""
    squares = math.fsum(value * value for value in values)
    return math.fsum(values) ** 2 / (len(values) * squares) if squares > 0 else None
