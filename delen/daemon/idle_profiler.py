"""Measures profiles in a running daemon while it serves nothing."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack

from delen.core.failures import FailureCounter
from delen.daemon.build_model import ModelBuilder
from delen.engine.model import Model
from delen.engine.runtime import Runtime
from delen.measure.disturbance import GaveWay, ProcessorWatch, is_calm

log = logging.getLogger("delen")

_LOOK_EVERY = 1.0
_IDLE_SECONDS = 5.0
"""Without a request, after which a measurement may begin."""
_TRY_AGAIN = 60.0
"""Seconds after a measurement that was disturbed, before the next one of the same model."""


class IdleProfiler:
    """Completes quick profiles, and measures those from a busy machine again, while ``runtime``
    serves nothing and the machine is calm. Requests never wait for it but for the segment that
    runs: the measurement ends there, and begins anew another time."""

    def __init__(self, runtime: Runtime, builder: ModelBuilder) -> None:
        self._runtime = runtime
        self._builder = builder
        self._not_before: dict[str, float] = {}
        self._failures = FailureCounter("idle_profiler", log)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="delen-profiler", daemon=True)

    def start(self) -> None:
        """To be called before anything is served: measure now what can be, if the machine is calm,
        and later whenever nothing is served."""
        idle_since = self._runtime.idle_since
        due = [model for model in self._runtime.store.models() if self._is_due(model)]
        if due and idle_since is not None and is_calm():
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
            if idle_since is None or time.monotonic() - idle_since < _IDLE_SECONDS:
                continue
            if disturbance is None or not disturbance.busy:
                self.look(idle_since)
                watch = ProcessorWatch()

    def look(self, idle_since: float) -> None:
        """Measure all models that need it, as long as nothing came since ``idle_since``."""
        for model in self._runtime.store.models():
            if self._is_due(model):
                self._not_before[model.name] = time.monotonic() + _TRY_AGAIN
                try:
                    self._improve(model, idle_since)
                except GaveWay:
                    del self._not_before[model.name]
                except Exception as error:
                    message = "the profile of %s could not be measured again"
                    self._failures.failed(error, message, model.name)

    def _is_due(self, model: Model) -> bool:
        profile, now = model.costs.profile, time.monotonic()
        if not profile.quick or model.costs.stale is not None:
            return False
        if profile.busy:
            return now >= self._not_before.get(model.name, now)
        return profile.lacks_host and model.name not in self._not_before

    def _improve(self, model: Model, idle_since: float) -> None:
        runtime, costs, known = self._runtime, model.costs, model.costs.profile

        def gives_way() -> bool:
            entries = [entry for _, entry in runtime.store.entries()]
            return (
                self._stop.is_set()
                or runtime.idle_since != idle_since
                or any(entry.state == "loading" for entry in entries)
                or all(entry.model is not model for entry in entries)
            )

        def is_same() -> bool:
            return costs.profile is known and costs.stale is None

        with ExitStack() as leases:
            for segment in range(model.exits):
                lease = model.residency.lease_resident(segment)
                if lease is None:
                    raise GaveWay  # it needs memory that other models have
                leases.callback(lease.end)
            profile = self._builder.measure_again(model, gives_way)
        if profile.busy or not is_same():
            return
        self._builder.keep(model, profile)
        adopt = self._builder.adopt(profile)
        runtime.change(model, lambda model: adopt(model) if is_same() else None)
        log.info("model %s: its profile was measured again while nothing was served", model.name)
