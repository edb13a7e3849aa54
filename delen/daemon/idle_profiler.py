"""Measures profiles in a running daemon while it serves nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TypeAlias
from weakref import WeakKeyDictionary

from delen.core.crash_guard import PROFILER, CrashGuard
from delen.core.failures import FailureCounter
from delen.daemon.build_model import ModelBuilder
from delen.energy.service import EnergyService
from delen.engine.model import Model
from delen.engine.runtime import Runtime
from delen.errors import ProfileError
from delen.measure.disturbance import GaveWay, ProcessorWatch, is_calm
from delen.profile.cost_model import CostModel
from delen.profile.profile import Profile
from power.metering.blocks import BlockPlan
from power.sources.sampler import Sampler

log = logging.getLogger("delen")

_LOOK_EVERY = 1.0
_IDLE_SECONDS = 5.0
"""Without a request, after which a measurement may begin."""
_GAP_SECONDS = 1.0
"""The same of what is known roughly or not at all, which is measured on a busy machine, too."""
_TRY_AGAIN = 60.0
"""Seconds after a measurement that was disturbed, before the next one of the same model."""
_ENERGY_IDLE_SECONDS = 60.0
"""Without a request, after which energies may be measured: that takes minutes."""
_ENERGY_AGAIN = 3600.0
"""Seconds after energies that could not be used, before they are measured again."""
_ENERGY_PLAN = BlockPlan()
_WAIT = 0.05

Measure: TypeAlias = Callable[[Model, Callable[[], bool]], Profile]
"""Measures a profile of a model. Raises GaveWay once the function that it is given says so."""


class IdleProfiler:
    """Completes quick profiles, and measures those from a busy machine again, while ``runtime``
    serves nothing and the machine is calm. Requests never wait for it but for the segment that
    runs: the measurement ends there, and begins anew another time. With ``energy`` it measures the
    energies of profiles that have none, too. Where it is ``in_background``, nothing waits for it at
    the start either."""

    def __init__(
        self,
        runtime: Runtime,
        builder: ModelBuilder,
        energy: EnergyService | None = None,
        in_background: bool = False,
        guard: CrashGuard | None = None,
    ) -> None:
        self._runtime = runtime
        self._builder = builder
        self._in_background = in_background
        self._guard = guard or CrashGuard()
        self._energy = energy
        self._no_energy_before = WeakKeyDictionary[CostModel, float]()
        self._not_before = WeakKeyDictionary[CostModel, float]()
        self._without_host = WeakKeyDictionary[CostModel, Profile]()
        """Profiles whose host costs were looked for, and not found out."""
        self._failures = FailureCounter("idle_profiler", log)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="delen-profiler", daemon=True)

    def complete(self, model: Model) -> None:
        """To be called before anything is served: measure now what serving ``model`` takes, if a
        quick profile does not say it. What a busy machine says of it is better than nothing."""
        idle_since = self._runtime.idle_since
        if self._in_background or idle_since is None:
            return
        if not self._lacks_host(model) or not self._may_change(model):
            return
        self._try(model, idle_since, self._builder.measure_host, though_busy=True)
        self._share_host(model)

    def start(self) -> None:
        """To be called before anything is served: measure now what can be, if the machine is calm,
        and later whenever nothing is served."""
        idle_since = self._runtime.idle_since
        due = [
            each for model in self._models() for each in model.sizes if self._is_due(each, model)
        ]
        if due and idle_since is not None and not self._in_background and is_calm():
            self.look(idle_since)
        self._thread.start()

    def close(self) -> None:
        """Stop, at the end of the segment that runs."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _loop(self) -> None:
        watch = ProcessorWatch()
        while not self._stop.wait(_LOOK_EVERY):
            disturbance, watch = watch.disturbance(), ProcessorWatch()
            idle_since = self._runtime.idle_since
            if idle_since is None or time.monotonic() - idle_since < _GAP_SECONDS:
                continue
            is_calm = disturbance is None or not disturbance.busy
            if is_calm and time.monotonic() - idle_since >= _IDLE_SECONDS:
                self.look(idle_since)
                if time.monotonic() - idle_since >= _ENERGY_IDLE_SECONDS:
                    self._look_for_energy(idle_since)
            elif self._in_background:
                self.look(idle_since, gaps_alone=True)
            watch = ProcessorWatch()

    def look(self, idle_since: float, gaps_alone: bool = False) -> None:
        """Measure all models that need it, as long as nothing came since ``idle_since``; those
        alone of which something is not known at all, where ``gaps_alone``."""
        for model in self._models():
            for each in model.sizes:
                if self._is_due(each, model) and (self._has_gap(each, model) or not gaps_alone):
                    self._not_before[each.costs] = time.monotonic() + _TRY_AGAIN
                    again = self._builder.measure_again
                    measure = again if each is model else self._builder.measure_segments
                    fills_gap = self._in_background and self._has_gap(each, model)
                    self._try(each, idle_since, measure, though_busy=fills_gap)
            self._share_host(model)

    def _models(self) -> list[Model]:
        """All that are there, at their largest sizes."""
        return self._runtime.store.models()

    def _is_due(self, size: Model, model: Model) -> bool:
        """Whether ``model`` has to be measured at ``size``."""
        now = time.monotonic()
        return (
            (size.costs.measured.busy or self._has_gap(size, model))
            and self._may_change(size)
            and now >= self._not_before.get(size.costs, now)
        )

    def _has_gap(self, size: Model, model: Model) -> bool:
        """Whether something is not known at all of ``model`` at ``size``, or roughly."""
        return size.costs.measured.rough or (size is model and self._lacks_host(model))

    def _share_host(self, model: Model) -> None:
        """Sizes are compared, and so by what serving takes at one moment: at the largest size."""
        host = model.costs.measured.host
        for smaller in model.smaller:
            known = smaller.costs.measured
            is_news = host not in (None, known.host) and not known.rough
            if is_news and self._may_change(smaller):
                self._adopt(smaller, known, replace(known, host=host))

    def _lacks_host(self, model: Model) -> bool:
        profile = model.costs.measured
        return profile.lacks_host and self._without_host.get(model.costs) is not profile

    def _may_change(self, model: Model) -> bool:
        return model.costs.measured.quick and model.costs.stale is None

    def _try(
        self, model: Model, idle_since: float, measure: Measure, though_busy: bool = False
    ) -> None:
        """Serve ``model`` by what ``measure`` says, unless something is in its way. Only
        ``though_busy`` it counts if the machine was."""
        try:
            self._improve(model, self._gives_way(model, idle_since), measure, though_busy)
        except GaveWay:
            self._not_before.pop(model.costs, None)
        except Exception as error:
            message = "the profile of %s could not be measured"
            self._failures.failed(error, message, model.variant)

    def _improve(
        self, model: Model, gives_way: Callable[[], bool], measure: Measure, though_busy: bool
    ) -> None:
        known = model.costs.measured
        with self._leased(model, gives_way):
            profile = measure(model, gives_way)
        fills_gap = known.rough or not profile.lacks_host
        is_better = not profile.busy or (though_busy and fills_gap)
        if is_better and self._adopt(model, known, profile):
            if profile.lacks_host:
                self._without_host[model.costs] = profile
            log.info("model %s: its profile was improved while nothing was served", model.variant)

    def _look_for_energy(self, idle_since: float) -> None:
        """Measure the energies of the models that have none, as long as nothing came."""
        energy = self._energy
        if energy is None:
            return
        for model in [size for each in self._models() for size in each.sizes]:
            meter = energy.free_meter()
            costs, now = model.costs, time.monotonic()
            is_right = not costs.measured.rough and costs.stale is None
            lacks_energy = costs.measured.energy is None and is_right
            if meter is None or not lacks_energy or now < self._no_energy_before.get(costs, now):
                continue
            self._no_energy_before[costs] = now + _ENERGY_AGAIN
            try:
                self._measure_energy(model, energy, meter, idle_since)
            except GaveWay:
                self._no_energy_before.pop(costs, None)
            except ProfileError as error:
                log.warning(
                    "model %s: its energies could not be measured: %s", model.variant, error
                )
            except Exception as error:
                message = "the energies of %s could not be measured"
                self._failures.failed(error, message, model.variant)

    def _measure_energy(
        self, model: Model, energy: EnergyService, meter: Sampler, idle_since: float
    ) -> None:
        known, gives_way = model.costs.measured, self._gives_way(model, idle_since)

        def wait(seconds: float) -> None:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                if gives_way() or energy.is_limited:
                    raise GaveWay
                self._stop.wait(min(_WAIT, left))

        with self._leased(model, gives_way):
            log.info("model %s: measuring its energies by %s", model.variant, meter.source.name)
            try:
                profile = self._builder.measure_energy(model, meter, gives_way, wait, _ENERGY_PLAN)
            except GaveWay:
                log.info("model %s: its energies are measured another time", model.variant)
                raise
        if self._adopt(model, known, profile):
            log.info(
                "model %s: its profile has energies now, by %s", model.variant, meter.source.name
            )

    def _gives_way(self, model: Model, idle_since: float) -> Callable[[], bool]:
        """Says whether something came since ``idle_since``, or is to come, or ``model`` went."""
        runtime = self._runtime

        def gives_way() -> bool:
            entries = [entry for _, entry in runtime.store.entries()]
            return (
                self._stop.is_set()
                or runtime.idle_since != idle_since
                or runtime.store.is_waited_for
                or any(entry.state == "loading" for entry in entries)
                or all(entry.model is None or model not in entry.model.sizes for entry in entries)
            )

        return gives_way

    @contextmanager
    def _leased(self, model: Model, gives_way: Callable[[], bool]) -> Iterator[None]:
        """Keeps all segments of ``model`` in memory; GaveWay where one is not, which is looked at
        again soon and costs nothing, or where it ``gives_way`` already. What runs meanwhile is
        ``model``."""
        if gives_way():
            raise GaveWay
        with ExitStack() as leases:
            for segment in range(model.exits):
                lease = model.residency.lease_resident(segment)
                if lease is None:
                    raise GaveWay  # it needs memory that other models have
                leases.callback(lease.end)
            self._guard.began(PROFILER, model.name)
            leases.callback(self._guard.ended, PROFILER)
            yield

    def _adopt(self, model: Model, known: Profile, profile: Profile) -> bool:
        """Keep ``profile`` and serve ``model`` by it, if it is still served by the ``known`` one;
        whether it was."""
        costs = model.costs

        def is_same() -> bool:
            return costs.measured is known and costs.stale is None

        if not is_same():
            return False
        self._builder.keep(model, profile)
        adopt = self._builder.adopt(profile)
        self._runtime.change(model, lambda model: adopt(model) if is_same() else None)
        return True
