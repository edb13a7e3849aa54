"""Joules of answers that outlast a restart: counters, and what each tenant used on each day."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import lru_cache

from delen.core.energy_status import DayEnergy, EnergyTotal, FinalKind
from delen.tenants.moment import EARLIEST

MAX_TENANTS = 100
"""Tenants beyond this many are recorded together as ``_other``, but those that are known."""

OTHERS = "_other"

MAX_DAYS = 31

Date = str | None
"""As in 2026-11-30, by local time. None: the clock has not been set."""

TotalKey = tuple[str, str, int, FinalKind]
Days = Mapping[Date, Mapping[str, DayEnergy]]


def local_date(wall: float) -> Date:
    """The date at ``wall`` (seconds since 1970); None where no clock that is right shows it."""
    return None if wall < EARLIEST else _date_of(int(wall // 60))


@lru_cache(maxsize=1)
def _date_of(minute: int) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(60 * minute))


class EnergyRecord:
    """Joules by tenant, model, exit and kind, and by day and tenant for the last 31 days that had
    any.

    What is used before the clock is set belongs to the first day that it shows. Days are never
    compared with the clock, which may be wrong.
    """

    def __init__(
        self, totals: Mapping[TotalKey, float] | None = None, days: Days | None = None
    ) -> None:
        self._totals = dict(totals or {})
        self._days: dict[Date, Mapping[str, DayEnergy]] = dict(days or {})
        self._names = dict.fromkeys(tenant for day in self._days.values() for tenant in day)
        seen = dict.fromkeys(tenant for tenant, *_ in self._totals)
        if len(seen) < MAX_TENANTS:
            self._names |= seen
        else:
            self._merge_idle()

    @property
    def days(self) -> Days:
        return self._days

    @property
    def tenants(self) -> Iterable[str]:
        """Those that have joules of their own here."""
        return self._names

    def copy(self) -> EnergyRecord:
        """The same joules, which go on apart."""
        same = EnergyRecord()
        same._totals, same._days, same._names = self._totals.copy(), self._days.copy(), self._names
        return same

    def know(self, tenant: str) -> None:
        """Record ``tenant`` under its own name, however many there are."""
        self._names = {**self._names, tenant: None}

    def add(self, date: Date, total: EnergyTotal) -> None:
        """Record the joules of an answer that became final on ``date``."""
        tenant = total.tenant
        if tenant not in self._names:
            if len(self._names) < MAX_TENANTS:
                self.know(tenant)
            else:
                tenant = OTHERS
        key = (tenant, total.model, total.exit, total.kind)
        self._totals[key] = self._totals.get(key, 0.0) + total.joules
        is_attributed = total.kind == "attributed"
        joules = (total.joules, 0.0) if is_attributed else (0.0, total.joules)
        self._add_to_day(date, {tenant: DayEnergy(date, *joules)})
        if date is not None and None in self._days:
            self._add_to_day(date, self._days.pop(None))

    def totals(self) -> list[EnergyTotal]:
        return [EnergyTotal(*key, joules) for key, joules in sorted(self._totals.items())]

    def by_tenant(self) -> dict[str, tuple[DayEnergy, ...]]:
        """The days of each tenant, oldest first; what has no date yet is the last."""
        found: dict[str, list[DayEnergy]] = {}
        for date in sorted(self._days, key=lambda date: (date is None, date or "")):
            for tenant, energy in self._days[date].items():
                found.setdefault(tenant, []).append(energy)
        return {tenant: tuple(days) for tenant, days in found.items()}

    def _add_to_day(self, date: Date, added: Mapping[str, DayEnergy]) -> None:
        """No day is ever changed, so that copies may share it."""
        day = dict(self._days.get(date, {}))
        for tenant, energy in added.items():
            before = day.get(tenant, DayEnergy(date))
            day[tenant] = DayEnergy(
                date,
                before.attributed + energy.attributed,
                before.estimated + energy.estimated,
            )
        self._days[date] = day
        dated = [known for known in self._days if known is not None]
        if len(dated) > MAX_DAYS:
            del self._days[min(dated)]

    def _merge_idle(self) -> None:
        """Record the tenants without a day as one."""
        totals, self._totals = self._totals, {}
        for (tenant, model, exit, kind), joules in totals.items():
            key = (tenant if tenant in self._names else OTHERS, model, exit, kind)
            self._totals[key] = self._totals.get(key, 0.0) + joules
