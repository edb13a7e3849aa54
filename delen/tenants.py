"""Tenants as they are seen from outside: their budgets, what they got, what it costs them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from delen.energy_desk import ControllerDesk
from delen.errors import DelenError
from delen.ledger import Booked
from delen.power_status import Budget, TenantStatus
from delen.tenant_file import Kept, TenantFile

log = logging.getLogger("delen.energy")


class Tenants:
    """The tenants' budgets, which are in the desk's controller and in a file.

    ``clock`` is the controller's, ``wall`` gives the seconds since 1970.
    """

    def __init__(
        self,
        desk: ControllerDesk,
        file: TenantFile,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._desk = desk
        self._file = file
        self._clock = clock
        self._wall = wall
        self._saving = threading.Lock()
        self._saved = file.load(wall())
        for name, kept in self._saved.items():
            desk.controller.set_budget(name, kept.budget, clock(), kept.spent)

    def status(self, booked: Mapping[str, Booked]) -> dict[str, TenantStatus]:
        """Every tenant that has a budget or was ``booked``."""
        with self._desk.lock:
            controller = self._desk.controller
            budgets = controller.budgets(self._clock())
            names = sorted({*booked, *budgets})
            prices = {name: controller.price(name) for name in names}
        found = {}
        for name in names:
            budget, counts = budgets.get(name), booked.get(name, Booked())
            found[name] = TenantStatus(
                budget=None if budget is None else budget.budget,
                balance=None if budget is None else budget.balance,
                attributed=counts.attributed,
                estimated=counts.estimated,
                answers=counts.answers,
                refused=counts.refused,
                price=prices[name],
            )
        return found

    def set(self, name: str, budget: Budget | None) -> None:
        """Give ``name`` a budget, or take it away, and keep that."""
        with self._desk.lock:
            self._desk.controller.set_budget(name, budget, self._clock())
        self.save()

    def save(self) -> None:
        """Keep the budgets as they stand, if they stand differently. What cannot be written is
        logged."""
        with self._saving:  # two at once would write into one another's file
            with self._desk.lock:
                states = self._desk.controller.budgets(self._clock())
            kept = {
                name: Kept(state.budget, max(0.0, state.budget.joules - state.balance))
                for name, state in states.items()
            }
            if kept == self._saved:
                return
            try:
                self._file.save(kept, self._wall())
                self._saved = kept
            except DelenError as error:
                log.error("the budgets are not kept: %s", error)
