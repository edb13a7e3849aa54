"""The thread that loads and evicts segments, as the ResidencyState decides."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic

from delen.core.crash_guard import LOADER, CrashGuard
from delen.core.failures import FailureCounter
from delen.errors import BackendError, DelenError, NoRoom
from delen.residency.interfaces import M, ModelExecutor, OpenBundle
from delen.residency.lease import ALWAYS_RESIDENT
from delen.residency.registry import LOOK_EVERY, ModelRegistry
from delen.residency.sizes import trim_memory
from delen.residency.slot import ModelSlot
from delen.residency.slot_residency import SlotResidency
from delen.residency.state import Evict, Load

log = logging.getLogger("delen.engine")

OPENING = 0.5
"""Seconds that opening a bundle is predicted to take before one was opened."""


class LoadingThread(Generic[M]):
    """Loads and evicts one segment at a time. ``busy`` is held while it does anything. ``opening``
    are the seconds that opening a bundle is predicted to take. A step that fails is counted, and
    the next one follows a moment later."""

    def __init__(
        self,
        registry: ModelRegistry[M],
        open_bundle: Callable[[Path], OpenBundle[M]],
        executor: ModelExecutor[M],
        guard: CrashGuard,
    ) -> None:
        self.busy = threading.Lock()
        self.opening = OPENING
        self._registry = registry
        self._changed = registry.changed
        self._state = registry.state
        self._open_bundle = open_bundle
        self._executor = executor
        self._guard = guard
        self._failures = FailureCounter("loader", log)
        self._is_stopping = False
        self.is_dead = False
        """Whether it has ended before it was closed, so that nothing is loaded any more."""
        self._thread = threading.Thread(target=self._loop, name="delen-loader", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._is_stopping = True
            self._registry.notify()
        self._thread.join()

    def _loop(self) -> None:
        try:
            self._take_steps()
        except BaseException as error:
            log.critical("the loader died", exc_info=error)
            with self._changed:
                self.is_dead = True
                self._registry.notify()

    def _take_steps(self) -> None:
        while not self._is_stopping:
            try:
                while self._take_step():
                    pass
                with self._changed:
                    if not self._is_stopping:
                        self._registry.wait_for_change()
            except Exception as error:
                self._failures.failed(error, "a step of the loader failed; it goes on")
                with self._changed:
                    self._changed.wait_for(lambda: self._is_stopping, LOOK_EVERY)

    def _take_step(self) -> bool:
        """Whether there was one to take."""
        with self.busy:
            with self._changed:
                now = time.monotonic()
                step = None if self._is_stopping else self._state.next_step(now)
            if step is not None:
                self._follow(step)
            return step is not None

    def _follow(self, step: Load | Evict) -> None:
        slot = self._state.slots[step.model]
        if isinstance(step, Evict):
            self._evict(slot, step)
            return
        self._guard.began(LOADER, slot.name)
        try:
            if (reason := self._guard.reason(slot.name)) is not None:
                raise BackendError(f"{slot.name} is {reason}")
            self._load(slot, step.segment)
        except DelenError as error:
            self._give_up(slot, step.segment, error)
        except Exception as error:
            log.exception("model %s: segment %d failed to load", step.model, step.segment)
            self._give_up(slot, step.segment, BackendError(f"the loader failed: {error}"))
        finally:
            self._guard.ended(LOADER)

    def _evict(self, slot: ModelSlot[M], step: Evict) -> None:
        assert slot.opened is not None
        self._executor.keep_resident(slot.name, step.segment)
        with self._changed:
            is_free = self._state.evict(step)
        if is_free:
            slot.opened.drop(step.segment)
            trim_memory()
            log.debug("model %s: segment %d has left memory", slot.name, step.segment)
        else:
            self._executor.keep_resident(slot.name, step.segment + 1)
        with self._changed:
            self._registry.notify()

    def _load(self, slot: ModelSlot[M], segment: int) -> None:
        began, needed_all = time.monotonic(), slot.needs_all
        bundle = self._open(slot)
        opened = time.monotonic()
        bundle.load(segment)
        trim_memory()
        seconds = time.monotonic() - opened
        log.debug("model %s: segment %d is in memory", slot.name, segment)
        with self._changed:
            self._state.loaded(slot, seconds)
        if slot.model is not None:
            self._executor.keep_resident(slot.name, segment + 1)
        else:
            self._complete(slot, bundle)
            if not needed_all:
                self.opening = max(OPENING, time.monotonic() - began - seconds)
        with self._changed:
            self._registry.notify()

    def _open(self, slot: ModelSlot[M]) -> OpenBundle[M]:
        if slot.opened is None:
            bundle = self._open_bundle(self._registry.path(slot.name))
            self._registry.check_opened(slot, bundle.bundle)
            with self._changed:
                slot.opened = bundle
            return bundle
        return slot.opened

    def _complete(self, slot: ModelSlot[M], bundle: OpenBundle[M]) -> None:
        """Make the model, or have all its segments loaded for that first."""
        is_whole = slot.depth == len(slot.sizes)
        if slot.needs_all and not is_whole:
            return
        is_capped = self._registry.is_capped
        residency = SlotResidency(self._registry, slot) if is_capped else ALWAYS_RESIDENT
        model = bundle.complete(residency, is_whole)
        if model is None:
            self._load_all(slot)
            return
        self._executor.add_model(model)
        if not is_whole:
            self._executor.keep_resident(slot.name, slot.depth)
        with self._changed:
            slot.complete(model)

    def _load_all(self, slot: ModelSlot[M]) -> None:
        policy = self._state.policy
        with self._changed:
            if policy.reach(slot) < len(slot.sizes):
                raise NoRoom(
                    f"{slot.name} has no profile of this device, and measuring one takes all its "
                    f"{sum(slot.sizes) / 1e6:.3g} MB at once, for which models.memory_mb "
                    f"{policy.cap / 1e6:g} leaves no room: run delen profile --model {slot.name}"
                )
            slot.load_all()

    def _give_up(self, slot: ModelSlot[M], segment: int, error: DelenError) -> None:
        """``segment`` cannot be loaded. A model that serves keeps those before it."""
        what = "it" if slot.opened is None else f"segment {segment}"
        log.error("model %s: %s cannot be loaded: %s", slot.name, what, error)
        try:
            if slot.opened is not None:
                for loaded in range(0 if slot.model is None else segment, segment + 1):
                    slot.opened.drop(loaded)
            trim_memory()
        finally:
            with self._changed:
                slot.fail(error.with_traceback(None))  # whose frames hold the network
                self._registry.notify()
            if slot.model is not None:
                self._executor.end_unavailable(slot.name)
                if slot.depth == 0:
                    self._begin_anew(slot, error)

    def _begin_anew(self, slot: ModelSlot[M], error: DelenError) -> None:
        """Nothing is left of a model that cannot be loaded: what comes next opens its bundle."""
        if self._executor.remove_model(slot.name) > 0:
            return
        with self._changed:
            self._state.add(slot.name, slot.sizes).fail(error)
            self._registry.notify()
