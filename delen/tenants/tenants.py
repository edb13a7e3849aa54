"""Tenants as they are seen from outside: what they may have, what they got, what it costs them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from delen.core.energy_status import Kept as KeptAsIs
from delen.core.energy_status import TenantChanges, TenantStatus
from delen.core.tenant import UNSET, TenantSettings
from delen.errors import DelenError
from delen.tenants.store import Kept, TenantStore
from delen.tenants.usage import RecentUsage, TenantTotals
from policies.energy.api import EnergyController

log = logging.getLogger("delen.energy")


class House(Protocol):
    """Where tenants' requests are served. Safe to call from many threads."""

    def stand(self, tenant: str, settings: TenantSettings) -> None:
        """From now on requests of ``tenant`` are served as its ``settings`` says."""

    def behind(self, tenants: Iterable[str]) -> Collection[str]:
        """Those of ``tenants`` that have used more than their share of the device."""


class Budgets(Protocol):
    """The controller that has the budgets, and the lock to be held while it is asked."""

    @property
    def lock(self) -> threading.Lock: ...
    @property
    def controller(self) -> EnergyController: ...


class Tenants:
    """What was set of tenants: budgets, which are in the desk's controller, and standings, both
    kept in a file.

    ``clock`` is the controller's, ``wall`` gives the seconds since 1970.
    """

    def __init__(
        self,
        admission: Budgets,
        file: TenantStore,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._admission = admission
        self._file = file
        self._clock = clock
        self._wall = wall
        self._house: House | None = None
        self._settings: dict[str, TenantSettings] = {}
        self._changing = threading.Lock()
        self._saving = threading.Lock()
        self._saved = file.load(wall())
        for name, kept in self._saved.items():
            if kept.budget is not None:
                admission.controller.set_budget(name, kept.budget, clock(), kept.spent)
            if kept.settings != UNSET:
                self._settings[name] = kept.settings

    def move_in(self, house: House) -> None:
        """Let ``house`` serve them as they stand."""
        with self._changing:
            self._house = house
            for name, settings in self._settings.items():
                house.stand(name, settings)

    def are_set(self) -> set[str]:
        """Those that have a budget or a standing."""
        with self._admission.lock:
            budgets = set(self._admission.controller.budgets(self._clock()))
        with self._changing:
            return budgets | self._settings.keys()

    def weight(self, name: str) -> float:
        """That of ``name`` against others', 1 where none is set."""
        weight = self._settings.get(name, UNSET).weight
        return 1.0 if weight is None else weight

    def status(
        self, booked: Mapping[str, TenantTotals], recent: Mapping[str, RecentUsage]
    ) -> dict[str, TenantStatus]:
        """Every tenant of which something is set or that was ``booked``; ``recent`` is what they
        used lately."""
        with self._changing:
            all_settings = dict(self._settings)
        with self._admission.lock:
            controller = self._admission.controller
            budgets = controller.budgets(self._clock())
            names = sorted({*booked, *budgets, *all_settings})
            prices = {name: controller.price(name) for name in names}
        behind = () if self._house is None else self._house.behind(names)
        used = sum(got.seconds for got in recent.values())
        found = {}
        for name in names:
            budget, counts = budgets.get(name), booked.get(name, TenantTotals())
            settings = all_settings.get(name, UNSET)
            found[name] = TenantStatus(
                budget=None if budget is None else budget.budget,
                balance=None if budget is None else budget.balance,
                attributed=counts.attributed,
                estimated=counts.estimated,
                answers=counts.answers,
                refused=counts.refused,
                price=prices[name],
                weight=settings.weight,
                priority=settings.priority,
                missed=counts.missed,
                seconds=counts.seconds,
                share=recent[name].seconds / used if used and name in recent else None,
                is_behind=name in behind,
            )
        return found

    def change(self, name: str, changes: TenantChanges) -> None:
        """Take ``changes`` over, and keep them."""
        if not isinstance(changes.budget, KeptAsIs):
            with self._admission.lock:
                self._admission.controller.set_budget(name, changes.budget, self._clock())
        with self._changing:
            settings = changes.applied(self._settings.get(name, UNSET))
            if settings == UNSET:
                self._settings.pop(name, None)
            else:
                self._settings[name] = settings
            if self._house is not None:
                self._house.stand(name, settings)
        self.save()

    def save(self) -> None:
        """Keep what is set as it stands, if it stands differently. What cannot be written is
        logged."""
        with self._saving:  # two at once would write into one another's file
            with self._admission.lock:
                states = self._admission.controller.budgets(self._clock())
            with self._changing:
                kept = {name: Kept(settings=each) for name, each in self._settings.items()}
            for name, state in states.items():
                spent = max(0.0, state.budget.joules - state.balance)
                settings = kept[name].settings if name in kept else UNSET
                kept[name] = Kept(state.budget, spent, settings)
            if kept == self._saved:
                return
            try:
                self._file.save(kept, self._wall())
                self._saved = kept
            except DelenError as error:
                log.error("what is set of tenants is not kept: %s", error)
