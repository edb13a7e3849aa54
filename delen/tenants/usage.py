"""What tenants used of the device lately."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import nan

from delen.core.fairness import Fairness, Use, fairness

SPAN = 60.0
"""Seconds that are looked back on."""

_STEP = 5.0


@dataclass(slots=True)
class RecentUsage:
    """Device seconds and joules (NaN: unknown) of one tenant, its answers, and the requests that
    were turned away because of the load."""

    seconds: float = 0.0
    joules: float = 0.0
    answers: int = 0
    turned_away: int = 0


@dataclass(slots=True)
class TenantTotals:
    """Joules of a tenant's settled answers by how they are known, how many requests were answered,
    how many refused or failed by the error's code, how many answers broke which bound, and device
    seconds: of a batch each of its requests bears the same part."""

    attributed: float = 0.0
    estimated: float = 0.0
    answers: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class UsageWindow:
    """The last minute, in steps of five seconds, of which the oldest is left out as a whole.

    Times are on the caller's clock and may not fall. The caller bounds how many tenants there are.
    """

    def __init__(self) -> None:
        self._steps: deque[tuple[float, dict[str, RecentUsage]]] = deque()

    def ran(self, now: float, tenant: str, seconds: float) -> None:
        self._of(now, tenant).seconds += seconds

    def answered(self, now: float, tenant: str, joules: float | None) -> None:
        got = self._of(now, tenant)
        got.answers += 1
        got.joules += nan if joules is None else joules

    def turned_away(self, now: float, tenant: str) -> None:
        self._of(now, tenant).turned_away += 1

    def totals(self, now: float) -> dict[str, RecentUsage]:
        """What each tenant got that asked for something."""
        self._drop(now)
        totals: dict[str, RecentUsage] = {}
        for _, step in self._steps:
            for tenant, got in step.items():
                total = totals.setdefault(tenant, RecentUsage())
                total.seconds += got.seconds
                total.joules += got.joules
                total.answers += got.answers
                total.turned_away += got.turned_away
        return totals

    def _of(self, now: float, tenant: str) -> RecentUsage:
        if not self._steps or now >= self._steps[-1][0] + _STEP:
            self._steps.append((now, {}))
            self._drop(now)
        return self._steps[-1][1].setdefault(tenant, RecentUsage())

    def _drop(self, now: float) -> None:
        while self._steps and self._steps[0][0] <= now - SPAN:
            self._steps.popleft()


def fairness_of(totals: Mapping[str, RecentUsage], weight: Callable[[str], float]) -> Fairness:
    """How evenly ``totals`` are shared out among tenants that have ``weight``."""

    def index(used: Callable[[RecentUsage], float]) -> float | None:
        return fairness(
            Use(weight(name), used(got), got.answers, got.turned_away)
            for name, got in totals.items()
        )

    return Fairness(index(lambda got: got.seconds), index(lambda got: got.joules))
