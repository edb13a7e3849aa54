"""What requests and operators have loaded and unloaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Generic

from delen.bundle.manifest import Manifest
from delen.core.crash_guard import CrashGuard
from delen.errors import BackendError, ModelLoading, ModelNotFound, NoRoom, Overloaded
from delen.residency.interfaces import M, ModelExecutor, OpenBundle
from delen.residency.lease import still_loading
from delen.residency.registry import ModelRegistry, not_loaded
from delen.residency.sizes import trim_memory
from delen.residency.slot import ModelSlot
from delen.residency.slot_residency import STAYS_FOR
from delen.residency.state import MemoryStatus, SegmentStatus
from delen.residency.thread import LoadingThread

_MOST_WAITING = 8
"""Requests that may wait for bundles to be opened, each on a thread that others need, too."""
_MEASURING = 5.0
"""Seconds that measuring a profile is predicted to take, once it is known that there is none."""


class ModelLoader(Generic[M]):
    """Loads and unloads models: under a cap on memory on demand and segment by segment, without one
    by name and whole. Safe to call from many threads."""

    def __init__(
        self,
        registry: ModelRegistry[M],
        open_bundle: Callable[[Path], OpenBundle[M]],
        executor: ModelExecutor[M],
        guard: CrashGuard | None = None,
    ) -> None:
        self._registry = registry
        self._state = registry.state
        self._changed = registry.changed
        self._executor = executor
        self._waiting = 0
        self._is_closed = False
        self._guard = guard or CrashGuard()
        self._thread = LoadingThread(registry, open_bundle, executor, self._guard)

    def load(self, name: str, is_trusted: bool = True) -> M:
        """Load ``name``; under a cap its first segment, which stays in memory from now on, and the
        others follow as there is room. Raises NoRoom where the cap leaves no room for it,
        ModelLoading where it does not for now, or what its loading raised. Bundles are looked for
        again where ``name`` is unknown. What crashed the process is loaded only if it
        ``is_trusted``: BackendError."""
        self._registry.look_for(name)
        if is_trusted:
            self._guard.release(name)
        self._registry.refresh(name)
        with self._changed:
            slot = self._registry.slot(name)
            self._check_room(slot)
            self._check_measured(slot)
            slot.pin()
            others = [other for other in self._state.slots if other != name]
        for other in others:  # what has no room beside it any more waits no longer
            self._executor.end_unavailable(other)
        with self._changed:
            slot.uses.add(time.monotonic(), len(slot.sizes))
            if not self._registry.is_capped and slot.model is None:
                slot.load_all()
            self._registry.notify()
            return self._wait_for(slot, None)

    def find(self, name: str, seconds: float | None) -> M:
        """The model ``name``; under a cap it is opened if it is not. NoRoom where the cap leaves no
        room for it, ModelLoading where opening is predicted to take longer than ``seconds`` (None:
        there is no hurry), or failed, and without a cap where it is not loaded."""
        if not self._registry.is_capped:
            return self._registry.ready(name)
        with self._changed:
            slot = self._registry.slot(name)
            if slot.model is not None and slot.depth > 0:
                return slot.model
            if slot.state == "failed":
                raise not_loaded(slot)
            self._check_room(slot)
            if slot.model is not None:
                return slot.model
            now, wait = time.monotonic(), self._seconds_to_open(slot)
            slot.uses.add(now, len(slot.sizes))
            slot.request(now + wait + STAYS_FOR)
            self._registry.notify()
            is_late = seconds is not None and wait > seconds
            if is_late or self._waiting >= _MOST_WAITING:
                raise still_loading(name, wait)
            return self._wait_for(slot, seconds)

    def manifest(self, name: str) -> Manifest:
        """What ``name`` was, or will be, loaded from. ModelLoading if it is not loaded, and not on
        demand either."""
        if self._registry.is_capped:
            return self._registry.entry(name).manifest
        return self._registry.ready(name).bundle.manifest

    def unload(self, name: str) -> None:
        """Free all segments of ``name``; Overloaded while jobs of it are under way. Under a cap the
        next request loads it again."""
        with self._thread.busy:
            with self._changed:
                slot = self._registry.slot(name)
            if (jobs := self._executor.remove_model(name)) > 0:
                raise Overloaded(f"model {name!r} has {jobs} jobs under way", retry_after=0.1)
            with self._changed:
                if not self._state.owns(slot):
                    return  # it was idle, and a rescan has removed it or begun a new one
                self._state.add(name, slot.sizes)
                self._registry.notify()
            if self._registry.is_capped and slot.opened is not None:
                for segment in range(slot.depth):
                    slot.opened.drop(segment)
            trim_memory()
        self._registry.refresh(name)

    def keep(self, names: Sequence[str], until: float) -> None:
        """Have the models ``names`` in memory whole until then, as far as the cap has room, and
        keep no others. It waits for none of them. ModelNotFound, and nothing changes, for an
        unknown name."""
        with self._changed:
            slots = [self._registry.slot(name) for name in names]
            if self._registry.is_capped:
                self._state.policy.kept.keep(names, until)
            else:
                for slot in slots:
                    if slot.state == "unloaded":
                        slot.load_all()
            self._registry.notify()

    def missing(self, name: str) -> str | None:
        """Why model ``name`` is not in memory whole; None if it is."""
        with self._changed:
            try:
                slot = self._registry.slot(name)
            except ModelNotFound as error:  # its bundle was there when it was named
                return str(error)
            count = len(slot.sizes)
            if slot.model is not None and slot.available == count:
                return None
            if slot.failure is not None:
                return str(slot.failure.error)
            is_loading = slot.loading_since is not None or slot.needs_all
            if is_loading or self._state.policy.has_room_to_grow(slot, time.monotonic()):
                return f"{count - slot.available} of its {count} segments are being loaded"
            return (
                f"models.memory_mb {self._state.policy.cap / 1e6:g} leaves no room for "
                f"{count - slot.available} of its {count} segments beside the others"
            )

    def outlook(self, name: str) -> tuple[int, float]:
        """How many segments of ``name`` can be in memory, and the seconds until all of those are,
        0 where they are there; (0, 0) where it cannot be loaded."""
        with self._changed:
            slot, policy = self._registry.slot(name), self._state.policy
            reach = int(min(policy.reach(slot), slot.unavailable))
            if slot.model is not None and slot.available >= reach:
                return reach, 0.0
            opening = 0.0 if slot.model is not None else self._opening(slot)
            waits = policy.waits(slot, time.monotonic()) or ()
            return reach, opening + max((wait for wait in waits if wait < inf), default=0.0)

    def segments(self, name: str) -> list[SegmentStatus]:
        """Where the segments of model ``name`` are."""
        with self._changed:
            return self._state.segments(self._registry.slot(name))

    def memory(self) -> MemoryStatus:
        """What all segments take."""
        with self._changed:
            return self._state.memory()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
        self._thread.close()

    def _check_room(self, slot: ModelSlot[M]) -> None:
        """NoRoom unless the first segment has room beside those that are pinned."""
        policy = self._state.policy
        needed, beside = slot.sizes[0], policy.pinned_beside(slot)
        if needed + beside > policy.cap:
            others = f", beside {beside / 1e6:.3g} MB that loaded models keep" if beside else ""
            raise NoRoom(
                f"models.memory_mb is {policy.cap / 1e6:g}: the first segment of {slot.name} takes "
                f"{needed / 1e6:.3g} MB{others}"
            )

    def _check_measured(self, slot: ModelSlot[M]) -> None:
        """ModelLoading while another model is measured, which takes the room for ``slot``."""
        policy = self._state.policy
        pinned = 0 if slot.pinned else slot.sizes[0]
        for other in self._state.slots.values():
            if other is slot or not other.needs_all:
                continue
            if sum(other.sizes) + policy.pinned_beside(other) + pinned > policy.cap:
                raise ModelLoading(
                    f"models.memory_mb leaves no room for {slot.name} while {other.name} is "
                    "measured, which takes all its segments",
                    retry_after=_MEASURING,
                )

    def _seconds_to_open(self, slot: ModelSlot[M]) -> float:
        waits = self._state.policy.waits(slot, time.monotonic())
        return self._opening(slot) + (waits[0] if waits else 0.0)

    def _opening(self, slot: ModelSlot[M]) -> float:
        """Seconds to open the bundle of ``slot``, and to measure it where it has no profile."""
        return self._thread.opening + (_MEASURING if slot.needs_all else 0.0)

    def _wait_for(self, slot: ModelSlot[M], seconds: float | None) -> M:
        """The model once it is opened and has a segment in memory. With ``changed`` held."""

        def is_settled() -> bool:
            is_over = self._is_closed or self._thread.is_dead or not self._state.owns(slot)
            has_no_room = self._state.policy.has_no_room(slot, 0)
            return is_over or has_no_room or slot.state in ("ready", "failed")

        self._waiting += 1
        try:
            self._changed.wait_for(is_settled, seconds)
        finally:
            self._waiting -= 1
        if slot.state == "failed" and slot.failure is not None:
            raise slot.failure.error
        if slot.model is not None:
            return slot.model
        if self._thread.is_dead:
            raise BackendError(f"the loader died: model {slot.name!r} cannot be loaded")
        if not self._state.owns(slot):
            raise ModelLoading(f"model {slot.name!r} was unloaded meanwhile", retry_after=1.0)
        self._check_room(slot)
        raise still_loading(slot.name, self._seconds_to_open(slot))
