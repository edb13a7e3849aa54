"""Keeps house with energy: reads the device, closes the books, moves the price, answers for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from delen.core.energy_status import (
    KEPT,
    Battery,
    EnergyTotal,
    PowerChanges,
    PowerStatus,
    Settled,
    TenantChanges,
    TenantStatus,
    WindowStatus,
)
from delen.core.fairness import Fairness
from delen.energy.admission import ControllerAdmission
from delen.energy.ledger import Correction
from delen.energy.mode_monitor import ModeMonitor
from delen.energy.power_view import PowerViewBuilder
from delen.energy.windows import WindowAccounting
from delen.engine.model import Model
from delen.errors import PowerError
from delen.profile.energy_account import EnergyAccount
from delen.profile.profile import Profile
from delen.tenants.store import TenantStore
from delen.tenants.tenants import House, Tenants
from delen.tenants.usage import fairness_of
from policies.energy.api import EnergyController
from policies.energy.constraint import PowerView
from power.attribution.accounts import Accounts
from power.modes.switching import ModeSwitcher
from power.sources.boards import identify_board
from power.sources.sampler import Sampler
from power.sources.source import PowerSource

log = logging.getLogger("delen.energy")

_TICK = 0.1
_LOOK = 1.0
_SAVE = 30.0
_CLOSING = 2.0
_ANYBODY = ""
"""A tenant that nobody can be, and so one without a budget: its price is that of all."""


@dataclass(frozen=True, slots=True)
class EnergySettings:
    """``interval`` seconds between readings, ``window`` seconds that are shared out together,
    ``receipts`` answers that can be asked for, ``watts_per_core`` of the processor model. ``mode``
    is switched to at the start (empty: none), and only where ``switch_modes`` allows it."""

    interval: float = 0.05
    window: float = 1.0
    receipts: int = 10_000
    watts_per_core: float = 4.0
    mode: str = ""
    switch_modes: bool = False
    watt_cap: float | None = None
    battery: Battery | None = None


class EnergyService:
    """Energy accounting and control of one device. An EnergyService, safe for many threads.

    ``source`` is what measures, None for nothing; the steward closes it. ``root`` stands for /.
    Nothing that fails here takes a request with it: energy is then estimated, and that is said.
    """

    def __init__(
        self,
        source: PowerSource | None,
        controller: EnergyController,
        root: Path,
        tenants: TenantStore,
        settings: EnergySettings,
    ) -> None:
        self._controller = controller
        self._switcher = ModeSwitcher(root, settings.switch_modes)
        if settings.mode:
            self._switcher.switch(settings.mode)
        self._watch = ModeMonitor(root)
        board = identify_board(root)
        self._board = None if board is None else board.family
        self._accounts = Accounts(None if source is None else source.name, settings.watts_per_core)
        self._sampler = None if source is None else Sampler(source, settings.interval)
        self._books = WindowAccounting(
            self._sampler, self._accounts, settings.window, settings.receipts
        )
        self._books_lock = threading.Lock()
        self.admission = ControllerAdmission(controller)
        self._models: Callable[[], Iterable[Model]] = tuple
        self._reprofile: Callable[[Model], None] = lambda model: None
        self._started = time.monotonic()
        self._power_view = PowerViewBuilder(self._sampler, self._started)
        self._look_at = self._save_at = self._started
        self._failures = 0
        self._looking = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delen-energy", daemon=True)
        controller.set_watt_cap(settings.watt_cap)
        controller.set_battery(settings.battery, self._started)
        self._tenants = Tenants(self.admission, tenants)
        for name in self._tenants.are_set():
            self._books.ledger.know(name)

    def account(self, profile: Profile) -> EnergyAccount:
        """The account of a model whose profile this is from now on."""
        with self._books_lock:
            self._books.add_model(profile)
        return self._accounts.open(profile)

    @property
    def mode(self) -> str:
        """The key of the power mode, as profiles are filed under."""
        return self._watch.mode.key

    def start(
        self,
        models: Callable[[], Iterable[Model]],
        reprofile: Callable[[Model], None],
        house: House,
    ) -> None:
        """Begin to sample and to control. ``models`` are those that are loaded; ``reprofile``
        gives one the profile of the power mode that is in force by then; tenants are served in
        ``house``."""
        self._models, self._reprofile = models, reprofile
        self._tenants.move_in(house)
        if self._sampler is not None:
            self._sampler.start()
        self._thread.start()

    def close(self) -> None:
        """Stop, keep the budgets, and put back the power mode."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSING)
        if self._sampler is not None:
            self._sampler.close()
        self._tenants.save()
        try:
            self._switcher.restore()
        except PowerError as error:
            log.error("the power mode stays: %s", error)

    def _run(self) -> None:
        while not self._stop.wait(_TICK):
            try:
                self._tick(time.monotonic())
            except Exception:
                self._failures += 1
                if self._failures == 1:
                    log.exception("energy control failed; it goes on, and complains only once")

    def _tick(self, now: float) -> None:
        if now >= self._look_at:
            self._look_at = now + _LOOK
            self._look()
        self._settle()
        view = self._view(time.monotonic())
        with self.admission.lock:
            self._controller.tick(view)
        if now >= self._save_at:
            self._save_at = now + _SAVE
            self._tenants.save()

    def _look(self) -> None:
        """Look at the device; where its mode is another one, so are the profiles. A model that was
        being loaded while it changed has that of the mode before."""
        with self._looking:
            changed, throttled = self._watch.look()
            for sentence in (changed, throttled):
                if sentence is not None:
                    log.warning("%s", sentence)
                    with self._books_lock:
                        self._books.invalidate(sentence)
            for model in self._models():
                costs = model.costs
                is_other = costs.profile.device.power_mode != self.mode and costs.stale is None
                if changed is not None or is_other:
                    self._reprofile(model)

    def _settle(self) -> None:
        """Bring the books up to date, and the budgets with them."""
        with self.admission.lock:
            price = self._controller.price(_ANYBODY)
        health = self._power_view.health()
        with self._books_lock:
            corrections = self._enter()
            corrections += self._books.close_due(price, health)
        self._correct(corrections)

    def _enter(self) -> list[Correction]:
        return self._books.enter(self.admission.drain())

    def _correct(self, corrections: Sequence[Correction]) -> None:
        for tenant, estimated, final in corrections:
            with self.admission.lock:
                self._controller.settled(tenant, estimated, final)

    def _view(self, now: float) -> PowerView:
        """What was measured since the last tick; the rails go to the books."""
        state = self._power_view.state()
        with self._books_lock:
            books = self._books
            if state is not None and state.status == "ok" and state.reading is not None:
                books.note(state.reading.rails)
            return self._power_view.view(now, books.attributor, self._watch.headroom)

    def describe(self) -> PowerStatus:
        state, source = (
            self._power_view.state(),
            None if self._sampler is None else self._sampler.source,
        )
        now = time.monotonic()
        with self.admission.lock:
            price = self._controller.price(_ANYBODY)
            constraints = tuple(self._controller.constraints())
            battery = self._controller.battery()
        with self._books_lock:
            books, split = self._books, self._books.latest
            window, energy, count = books.history.latest, books.history.energy, books.history.count
            static, lag = books.attributor.static_watts, books.attributor.time_constant
            other = books.other_watts
        reading = None if state is None else state.reading
        is_measured = self._power_view.is_measured
        return PowerStatus(
            source=None if source is None else source.name,
            scope=None if source is None else source.scope,
            kind="unknown" if source is None else source.kind,
            watts=None if reading is None else reading.total,
            rails={} if reading is None else dict(reading.rails),
            state="none" if state is None else state.status,
            since=now - (self._started if state is None else state.since),
            problem=None if state is None else state.problem,
            age=None if reading is None else now - reading.time,
            board=self._board,
            mode=self._watch.status,
            static=static if is_measured else None,
            dynamic=None if split is None else split.attributed / (split.ended - split.began),
            other=other,
            time_constant=lag if is_measured else None,
            price=price,
            controller=self._controller.name,
            constraints=constraints,
            battery=battery,
            window=window,
            errors=0 if state is None else state.errors,
            windows=count,
            board_energy=energy,
        )

    def history(self, seconds: float) -> list[WindowStatus]:
        with self._books_lock:
            return self._books.history.since(time.time() - seconds)

    def receipt(self, request_id: str) -> Settled | None:
        with self._books_lock:
            corrections = self._enter()
            settled = self._books.ledger.receipt(request_id)
        self._correct(corrections)
        return settled

    def totals(self) -> list[EnergyTotal]:
        with self._books_lock:
            corrections = self._enter()
            totals = self._books.ledger.totals()
        self._correct(corrections)
        return totals

    def tenants(self) -> Mapping[str, TenantStatus]:
        with self._books_lock:
            corrections = self._enter()
            booked = self._books.ledger.tenants()
            recent = self._books.recent.totals(time.monotonic())
        self._correct(corrections)
        return self._tenants.status(booked, recent)

    def fairness(self) -> Fairness:
        with self._books_lock:
            recent = self._books.recent.totals(time.monotonic())
        return fairness_of(recent, self._tenants.weight)

    def set_tenant(self, name: str, changes: TenantChanges) -> TenantStatus:
        if changes.budget not in (KEPT, None):
            self._check_known()
        self._tenants.change(name, changes)
        if name in self._tenants.are_set():
            with self._books_lock:
                self._books.ledger.know(name)
        nothing = TenantStatus(None, None, 0.0, 0.0, 0, {}, self.admission.price(name))
        return self.tenants().get(name, nothing)

    def set_limits(self, changes: PowerChanges) -> None:
        if changes.watt_cap not in (KEPT, None) or changes.battery not in (KEPT, None):
            self._check_known()
        if changes.mode is not KEPT:
            self._switcher.switch(changes.mode)
            self._look()
        with self.admission.lock:
            if changes.watt_cap is not KEPT:
                self._controller.set_watt_cap(changes.watt_cap)
            if changes.battery is not KEPT:
                self._controller.set_battery(changes.battery, time.monotonic())

    def _check_known(self) -> None:
        """PowerError where no joule is known, so that no limit on them can be kept."""
        if self._sampler is None:
            raise PowerError(
                "no limit on energy can be kept: power.source is none",
                "choose another power.source",
            )
