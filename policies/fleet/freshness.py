"""Which standings count: not those that are old, and not those from the future.

A standing comes once a second. A node that has missed two is gone until it speaks again: it is
routed around. One that claims to be from the future has a clock that nobody can use, so its age is
unknown, and it counts as gone too; ``SKEW`` forgives what clocks that are kept in step differ by.
Of what waited when a standing was made, as much is done since as time has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from policies.fleet.api import Standing

PATIENCE = 2.5
"""Seconds: two standings, and what their way takes."""

SKEW = 0.5
"""Seconds."""


def is_fresh(standing: Standing, now: float) -> bool:
    return -SKEW <= now - standing.said <= PATIENCE


def fresh(standings: Sequence[Standing], now: float) -> list[Standing]:
    """Those that count, the latest of each node, as they will be ``now``."""
    latest: dict[str, Standing] = {}
    for standing in standings:
        known = latest.get(standing.node)
        if is_fresh(standing, now) and (known is None or known.said < standing.said):
            latest[standing.node] = standing
    return [_aged(standing, now) for standing in latest.values()]


def _aged(standing: Standing, now: float) -> Standing:
    age = max(0.0, now - standing.said)
    if not age or not standing.backlog:
        return standing
    return replace(standing, backlog=max(0.0, standing.backlog - age))
