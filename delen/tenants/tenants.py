"""Tenants as they are seen from outside: what is set for them, what they got, what it costs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from delen.core.energy_status import UNCHANGED, Budget, DayEnergy, TenantChanges, TenantStatus
from delen.core.failures import FailureCounter
from delen.core.tenant import UNSET, TenantSettings
from delen.errors import NotKept
from delen.tenants.moment import Moment, read_moment
from delen.tenants.store import StoredTenant, TenantStore
from delen.tenants.usage import RecentUsage, TenantTotals
from policies.energy.budget import BudgetState

log = logging.getLogger("delen.energy")


class TenantHost(Protocol):
    """Where tenants' requests are served. Safe to call from many threads."""

    def set_tenant(self, tenant: str, settings: TenantSettings) -> None:
        """From now on requests of ``tenant`` are served as its ``settings`` say."""

    def behind(self, tenants: Iterable[str]) -> Collection[str]:
        """Those of ``tenants`` that have used more than their share of the device."""


class Budgets(Protocol):
    """The energy controller, as far as tenants are concerned. Safe to call from many threads."""

    def set_budget(self, tenant: str, budget: Budget | None, spent: float = 0.0) -> None: ...
    def budgets(self) -> Mapping[str, BudgetState]: ...
    def prices(self, tenants: Iterable[str]) -> Mapping[str, float]: ...


class Tenants:
    """What is set for tenants, kept in a file: budgets, which the controller has, and settings.

    A change is in the file before it is in force. ``clock`` gives the moment at which the file is
    read or written.
    """

    def __init__(
        self, budgets: Budgets, file: TenantStore, clock: Callable[[], Moment] = read_moment
    ) -> None:
        self._budgets = budgets
        self._file = file
        self._clock = clock
        self._host: TenantHost | None = None
        self._settings: dict[str, TenantSettings] = {}
        self._changing = threading.Lock()
        self._saving = threading.Lock()
        """Held while the file is written, and until what it says is in force: an older state must
        not replace a newer one."""
        self._failures = FailureCounter("tenants_file", log)
        self._saved = file.load(clock())
        for name, stored in self._saved.items():
            if stored.budget is not None:
                budgets.set_budget(name, stored.budget, stored.spent)
            if stored.settings != UNSET:
                self._settings[name] = stored.settings

    def start(self, host: TenantHost) -> None:
        """Have ``host`` serve them by their settings, now and after each change."""
        with self._changing:
            self._host = host
            for name, settings in self._settings.items():
                host.set_tenant(name, settings)

    def are_set(self) -> set[str]:
        """Those that have a budget or settings."""
        budgets = set(self._budgets.budgets())
        with self._changing:
            return budgets | self._settings.keys()

    def weight(self, name: str) -> float:
        """The weight of ``name`` against others', 1 where none is set."""
        weight = self._settings.get(name, UNSET).weight
        return 1.0 if weight is None else weight

    def status(
        self,
        totals: Mapping[str, TenantTotals],
        recent: Mapping[str, RecentUsage],
        days: Mapping[str, tuple[DayEnergy, ...]],
    ) -> dict[str, TenantStatus]:
        """Every tenant that has ``totals`` or ``days``, or for which something is set, those with
        totals first and in their order; ``recent`` is what they used lately."""
        with self._changing:
            all_settings = dict(self._settings)
        budgets = self._budgets.budgets()
        names = list(dict.fromkeys([*totals, *days, *sorted({*budgets, *all_settings})]))
        prices = self._budgets.prices(names)
        behind = () if self._host is None else self._host.behind(names)
        used = sum(got.seconds for got in recent.values())
        found = {}
        for name in names:
            budget, own = budgets.get(name), totals.get(name, TenantTotals())
            settings = all_settings.get(name, UNSET)
            found[name] = TenantStatus(
                budget=None if budget is None else budget.budget,
                balance=None if budget is None else budget.balance,
                attributed=own.attributed,
                estimated=own.estimated,
                answers=own.answers,
                refused=own.refused,
                price=prices[name],
                weight=settings.weight,
                priority=settings.priority,
                missed=own.missed,
                seconds=own.seconds,
                share=recent[name].seconds / used if used and name in recent else None,
                is_behind=name in behind,
                days=days.get(name, ()),
            )
        return found

    def change(self, name: str, changes: TenantChanges) -> None:
        """Keep ``changes``, and apply them. Raises NotKept where they cannot be kept; nothing has
        changed then."""
        with self._saving:
            stored = self._stored()
            before = stored.pop(name, StoredTenant())
            settings = changes.applied(before.settings)
            budget = before.budget if changes.budget is UNCHANGED else changes.budget
            if budget is not None or settings != UNSET:
                stored[name] = StoredTenant(budget, before.spent, settings)
            self._write(stored)
            if changes.budget is not UNCHANGED:
                self._budgets.set_budget(name, budget)
            with self._changing:
                if settings == UNSET:
                    self._settings.pop(name, None)
                else:
                    self._settings[name] = settings
                host = self._host
            if host is not None:
                host.set_tenant(name, settings)

    def save(self) -> None:
        """Write what is set to the file, if it changed. A failure is logged."""
        with self._saving:
            try:
                self._write(self._stored())
            except NotKept as error:
                self._failures.failed(error, "what tenants spent is not kept")

    def _stored(self) -> dict[str, StoredTenant]:
        """What is in force."""
        states = self._budgets.budgets()
        with self._changing:
            all_settings = dict(self._settings)
        stored = {name: StoredTenant(settings=each) for name, each in all_settings.items()}
        for name, state in states.items():
            spent = max(0.0, state.budget.joules - state.balance)
            settings = all_settings.get(name, UNSET)
            stored[name] = StoredTenant(state.budget, spent, settings)
        return stored

    def _write(self, stored: dict[str, StoredTenant]) -> None:
        if stored != self._saved:
            self._file.save(stored, self._clock())
            self._saved = stored
