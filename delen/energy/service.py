"""Energy accounting and control of one device: the thread that ticks, and what the API reads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path

from delen.core.energy_status import (
    UNCHANGED,
    Battery,
    EnergyTotal,
    PowerChanges,
    PowerStatus,
    Settled,
    TenantChanges,
    TenantStatus,
    WindowStatus,
)
from delen.core.events import EventBus
from delen.core.failures import FailureCounter
from delen.core.fairness import Fairness
from delen.energy.accounts import Accounts
from delen.energy.admission import ControllerAdmission
from delen.energy.changes import EnergyChanges
from delen.energy.history import in_steps
from delen.energy.mode_monitor import ModeMonitor
from delen.energy.power_view import PowerViewBuilder
from delen.energy.windows import WindowAccounting
from delen.engine.model import Model
from delen.errors import Forbidden, PowerError
from delen.profile.energy_account import EnergyAccount
from delen.profile.profile import Profile
from delen.tenants.energy_file import EnergyFile
from delen.tenants.energy_record import EnergyRecord
from delen.tenants.store import TenantStore
from delen.tenants.tenants import TenantHost, Tenants
from delen.tenants.usage import MAX_TENANTS, Usage, fairness_of
from policies.energy.api import EnergyController
from policies.energy.constraint import PowerView
from power.modes.switching import ModeSwitcher
from power.sources.boards import identify_board
from power.sources.sampler import Sampler
from power.sources.source import PowerSource

log = logging.getLogger("delen.energy")

_ESTIMATE = "which sees the processor time of this process alone"
_TICK = 0.1
_LOOK = 1.0
_SAVE = 30.0
_CLOSING = 2.0


@dataclass(frozen=True, slots=True)
class EnergySettings:
    """``interval`` seconds between readings, ``window`` seconds that are shared out together,
    ``receipts`` answers that can be read back, ``watts_per_core`` of the processor model. ``mode``
    is switched to at the start (empty: none), and only where ``switch_modes`` allows it.
    ``trust_model``: a watt cap and a battery may rest on a source that only estimates.
    ``most_tenants`` are counted by name, and so many may have settings."""

    interval: float = 0.05
    window: float = 1.0
    receipts: int = 10_000
    watts_per_core: float = 4.0
    mode: str = ""
    switch_modes: bool = False
    trust_model: bool = False
    watt_cap: float | None = None
    battery: Battery | None = None
    most_tenants: int = MAX_TENANTS


class EnergyService:
    """Energy accounting and control of one device. Safe for many threads.

    ``source`` is what measures, None for nothing; the service closes it. ``root`` stands for /.
    ``energy_file`` keeps the joules of tenants over restarts, where there is one.
    A thread of its own closes windows, settles receipts and moves the price, whether or not
    anybody reads; what only reads changes nothing. A failure here takes no request with it: energy
    is then estimated, and receipts say so.
    """

    def __init__(
        self,
        source: PowerSource | None,
        controller: EnergyController,
        root: Path,
        tenants: TenantStore,
        settings: EnergySettings,
        energy_file: EnergyFile | None = None,
        events: EventBus | None = None,
    ) -> None:
        self._switcher = ModeSwitcher(root, settings.switch_modes)
        if settings.mode:
            self._switcher.switch(settings.mode)
        self._mode_monitor = ModeMonitor(root, source)
        board = identify_board(root)
        self._board = None if board is None else board.family
        self._accounts = Accounts(None if source is None else source.name, settings.watts_per_core)
        self._source = source
        self._changes = EnergyChanges(events or EventBus(), None if source is None else source.name)
        self._sampler = None if source is None else Sampler(source, settings.interval)
        self._accounting = WindowAccounting(
            self._sampler,
            self._accounts,
            settings.window,
            settings.receipts,
            record=None if energy_file is None else energy_file.open(),
            most_tenants=settings.most_tenants,
        )
        self._most_tenants = settings.most_tenants
        self._energy_file = energy_file
        self._trusts_model = settings.trust_model
        if settings.watt_cap or settings.battery:
            self.check_limits()
        self._lock = threading.Lock()
        """Held whenever the accounting is used."""
        self.admission = ControllerAdmission(controller)
        self._models: Callable[[], Iterable[Model]] = tuple
        self._reprofile: Callable[[Model], None] = lambda model: None
        self._started = time.monotonic()
        self._power_view = PowerViewBuilder(self._sampler, self._started)
        self._look_at = self._save_at = self._started
        self._failures = FailureCounter("energy_service", log)
        self._looking = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delen-energy", daemon=True)
        self.admission.set_watt_cap(settings.watt_cap)
        self.admission.set_battery(settings.battery)
        self._tenants = Tenants(self.admission, tenants)
        for name in self._tenants.are_set():
            self._accounting.know(name)

    def account(self, profile: Profile) -> EnergyAccount:
        """The energy account of a model with this profile from now on."""
        with self._lock:
            self._accounting.add_model(profile)
            self.admission.doubt = self._accounting.doubt
        return self._accounts.open(profile)

    @property
    def mode(self) -> str:
        """The key of the power mode, as profiles are filed under."""
        return self._mode_monitor.mode.key

    @property
    def is_limited(self) -> bool:
        """Whether a watt cap or a battery limits what the device draws."""
        limits = {constraint.name for constraint in self.admission.status().constraints}
        return bool(limits & {"watt_cap", "battery"})

    def free_meter(self) -> Sampler | None:
        """The sampler of a sensor that works, for whom runs something that nobody requested; None
        while there is none, and while watts are limited."""
        sampler = self._sampler
        if sampler is None or sampler.source.kind != "measured" or sampler.state().status != "ok":
            return None
        return None if self.is_limited else sampler

    def start(
        self,
        models: Callable[[], Iterable[Model]],
        reprofile: Callable[[Model], None],
        host: TenantHost,
    ) -> None:
        """Begin to sample and to control. ``models`` are those that are loaded; ``reprofile``
        gives one the profile of the power mode that is in force by then; ``host`` serves the
        tenants."""
        self._models, self._reprofile = models, reprofile
        self._tenants.start(host)
        if self._sampler is not None:
            self._sampler.start()
        self._thread.start()

    def close(self) -> None:
        """Stop, keep the budgets, and put back the power mode."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSING)
        self._settle_the_rest()
        if self._sampler is not None:
            self._sampler.close()
        self._tenants.save()
        if self._energy_file is not None:
            self._energy_file.save(time.monotonic(), self._record)
            self._energy_file.close()
        try:
            self._switcher.restore()
        except PowerError as error:
            log.error("the power mode stays: %s", error)

    def _settle_the_rest(self) -> None:
        """Charge what happened since the last tick, unless that tick still goes on."""
        if self._thread.is_alive():
            return
        try:
            self._settle()
        except Exception as error:
            self._failures.failed(error, "what was spent last is not charged")

    def _run(self) -> None:
        while not self._stop.wait(_TICK):
            try:
                self._tick(time.monotonic())
            except Exception as error:
                self._failures.failed(error, "a tick of energy control failed; the next goes on")

    def _tick(self, now: float) -> None:
        if now >= self._look_at:
            self._look_at = now + _LOOK
            self._look()
            constraints = self.admission.status().constraints
            self._changes.look(self._power_view.state(), self._mode_monitor.status, constraints)
        self._settle()
        self.admission.tick(self._view(time.monotonic()))
        if now >= self._save_at:
            self._save_at = now + _SAVE
            self._tenants.save()
        if self._energy_file is not None and self._energy_file.is_due(now):
            self._energy_file.save(now, self._record)

    def _look(self) -> None:
        """Look at the device; where its mode is another one, so are the profiles. A model that was
        being loaded while it changed has the profile of the mode before."""
        with self._looking:
            changed, throttled = self._mode_monitor.look()
            for sentence in (changed, throttled):
                if sentence is not None:
                    log.warning("%s", sentence)
                    with self._lock:
                        self._accounting.invalidate(sentence)
            for model in self._models():
                costs = model.costs
                is_other = costs.profile.device.power_mode != self.mode and costs.stale is None
                if changed is not None or is_other:
                    self._reprofile(model)

    def _settle(self) -> None:
        """Take in what happened, close the windows that are over, and charge the budgets."""
        price, health = self.admission.price(), self._power_view.check()
        with self._lock:
            corrections = self._accounting.enter(self.admission.drain())
        self.admission.settle(corrections)
        with self._lock:
            corrections = self._accounting.close_due(price, health)
            frozen_at = self._accounting.attributor.frozen_at
        self.admission.settle(corrections)
        if frozen_at is not None and self._sampler is not None:
            self._sampler.freeze(frozen_at)

    def _view(self, now: float) -> PowerView:
        """What was measured since the last tick; the rails go to the accounting."""
        state = self._power_view.state()
        with self._lock:
            if state is not None and state.status == "ok" and state.reading is not None:
                self._accounting.note(state.reading.rails)
            attributor = self._accounting.attributor
            zones = self._mode_monitor.zones
            view = self._power_view.view(now, attributor, zones.headroom)
            return replace(view, unread_zones=zones.unread)

    def describe(self) -> PowerStatus:
        now, state, source = time.monotonic(), self._power_view.state(), self._source
        control = self.admission.status()
        limits = {constraint.name for constraint in control.constraints}
        with self._lock:
            accounting = self._accounting.status()
        reading = None if state is None else state.reading
        current = None if state is None or state.status == "degraded" else reading
        is_measured = self._power_view.is_measured
        return PowerStatus(
            source=None if source is None else source.name,
            scope=None if source is None else source.scope,
            kind="unknown" if source is None else source.kind,
            watts=None if current is None else current.total,
            rails={} if current is None else dict(current.rails),
            state="none" if state is None else state.status,
            since=now - (self._started if state is None else state.since),
            problem=None if state is None else state.problem,
            warning=self._warning(limits),
            age=None if reading is None else now - reading.time,
            board=self._board,
            mode=self._mode_monitor.status,
            device=self._mode_monitor.device,
            static=accounting.static if is_measured else None,
            dynamic=accounting.dynamic,
            other=accounting.other,
            time_constant=accounting.attribution.delay if is_measured else None,
            price=control.price,
            controller=control.controller,
            constraints=control.constraints,
            battery=control.battery,
            window=accounting.window,
            errors=0 if state is None else state.errors,
            windows=accounting.windows,
            board_energy=accounting.board_energy,
            attribution=accounting.attribution if is_measured else None,
        )

    def history(self, seconds: float, step: float = 0.0) -> list[WindowStatus]:
        now = time.monotonic()
        with self._lock:
            windows = self._accounting.history.since(now - seconds, time.time() - now)
        return in_steps(windows, step) if step else windows

    def receipt(self, request_id: str) -> Settled | None:
        with self._lock:
            return self._accounting.receipt(request_id, self.admission.pending())

    def totals(self) -> list[EnergyTotal]:
        if self._energy_file is not None:
            return self._energy_file.save(time.monotonic(), self._record)
        return self._record().totals()

    def tenants(self) -> Mapping[str, TenantStatus]:
        usage = self._usage()
        recent, days = usage.recent(time.monotonic()), usage.record.by_tenant()
        return self._tenants.status(usage.tenants, recent, days)

    def fairness(self) -> Fairness:
        return fairness_of(self._usage().recent(time.monotonic()), self._tenants.weight)

    def _record(self) -> EnergyRecord:
        return self._usage().record

    def _usage(self) -> Usage:
        with self._lock:
            return self._accounting.usage(self.admission.pending())

    def set_tenant(self, name: str, changes: TenantChanges) -> TenantStatus:
        if changes.budget not in (UNCHANGED, None):
            self._check_known()
        known = self._tenants.are_set()
        if name not in known and len(known) >= self._most_tenants:
            raise Forbidden(
                f"{len(known)} tenants have settings, as many as tenants.most allows: take those "
                "of another one away first, or raise it"
            )
        self._tenants.change(name, changes)
        if name in self._tenants.are_set():
            with self._lock:
                self._accounting.know(name)
        nothing = TenantStatus(None, None, 0.0, 0.0, 0, {}, self.admission.price(name))
        return self.tenants().get(name, nothing)

    def set_limits(self, changes: PowerChanges) -> None:
        if changes.watt_cap not in (UNCHANGED, None) or changes.battery not in (UNCHANGED, None):
            self.check_limits()
        if changes.mode is not UNCHANGED:
            self._switcher.switch(changes.mode)
            self._look()
        if changes.watt_cap is not UNCHANGED:
            self.admission.set_watt_cap(changes.watt_cap)
        if changes.battery is not UNCHANGED:
            self.admission.set_battery(changes.battery)

    def _warning(self, limits: Set[str]) -> str | None:
        """What of the ``limits`` that are set is not kept, or does not see everything."""
        if self._source is None:
            budgets = sorted(name for name in limits if name.startswith("budget/"))
            return f"not kept, since no joule is known: {', '.join(budgets)}" if budgets else None
        if self._source.kind == "measured" or not {"watt_cap", "battery"} & limits:
            return None
        return f"limits on watts are kept by {self._source.name}, {_ESTIMATE}"

    def check_limits(self) -> None:
        """PowerError where a watt cap or a battery cannot be kept, since nothing is measured."""
        self._check_known()
        if self._source is not None and self._source.kind == "estimated" and not self._trusts_model:
            raise PowerError(
                f"no limit on watts can be kept: power.source is {self._source.name}, {_ESTIMATE}",
                "choose a power.source that measures, or power.trust_model = true to limit this "
                "estimate",
            )

    def _check_known(self) -> None:
        """PowerError where no joule is known, so that no limit on them can be kept."""
        if self._sampler is None:
            raise PowerError(
                "no limit on energy can be kept: power.source is none",
                "choose another power.source",
            )
