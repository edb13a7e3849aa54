"""How requests for a model under the cap on memory use its slot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import inf
from typing import Any

from delen.errors import DelenError, ModelLoading
from delen.residency.lease import Lease, ModelResidency, still_loading
from delen.residency.registry import LOOK_EVERY, ModelRegistry
from delen.residency.slot import ModelSlot

STAYS_FOR = 10.0
"""Seconds for which a model that had to be loaded for a request, which may have been refused
meanwhile, waits in memory for the next try."""


class SlotResidency(ModelResidency):
    """The ModelResidency of a model under the cap, until it is unloaded."""

    def __init__(self, registry: ModelRegistry[Any], slot: ModelSlot[Any]) -> None:
        self._registry = registry
        self._changed = registry.changed
        self._state = registry.state
        self._slot = slot

    def waits(self) -> Sequence[float] | None:
        with self._changed:
            self._check_loaded()
            return self._waits(time.monotonic())

    def record_use(self, exit: int) -> None:
        slot = self._slot
        with self._changed:
            self._check_loaded()
            now = time.monotonic()
            slot.uses.add(now, exit + 1)
            if slot.depth == 0:
                waits = self._waits(now) or [0.0]
                slot.request(now + STAYS_FOR + waits[0])
            self._notify_if_missing(exit)

    def lease(self, exit: int, seconds: float) -> Lease:
        end = time.monotonic() + seconds
        with self._changed:
            self._check_loaded()
            while not self._slot.acquire(0, exit):
                now = time.monotonic()
                if now >= end:
                    raise still_loading(self._slot.name, (self._waits(now) or [0.0])[0])
                self._changed.wait(min(end - now, LOOK_EVERY))
                self._check_loaded()
            self._notify_if_missing(exit)
            return Lease(self._release, range(exit + 1))

    def lease_resident(self, segment: int) -> Lease | None:
        with self._changed:
            slot = self._slot
            if not self._state.owns(slot) or segment >= slot.available:
                return None
            slot.acquire(segment, segment)
            return Lease(self._release, range(segment, segment + 1))

    def failure(self, segment: int) -> DelenError | None:
        slot = self._slot
        with self._changed:
            if segment >= slot.unavailable and slot.failure is not None:
                return slot.failure.error
            has_no_room = self._state.policy.has_no_room(slot, segment)
        return still_loading(slot.name, inf) if has_no_room else None

    def _waits(self, now: float) -> Sequence[float] | None:
        return self._state.policy.waits(self._slot, now)

    def _release(self, segment: int) -> None:
        with self._changed:
            self._slot.release(segment)
            self._notify_if_missing(segment)

    def _notify_if_missing(self, segment: int) -> None:
        if segment >= self._slot.available:
            self._registry.notify()

    def _check_loaded(self) -> None:
        if not self._state.owns(self._slot):
            raise ModelLoading(f"model {self._slot.name!r} is unloaded", retry_after=1.0)
