"""The bundles that can be served, and what is loaded of each."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Generic, TypeAlias

from delen.bundle.manifest import Bundle, Manifest, read_manifest
from delen.core.events import EventBus, EventName
from delen.errors import BundleError, ModelLoading, ModelNotFound
from delen.residency.interfaces import M
from delen.residency.sizes import segment_sizes
from delen.residency.slot import ModelSlot, ModelState
from delen.residency.state import ResidencyState

log = logging.getLogger("delen.engine")

Found: TypeAlias = dict[str, tuple[Path, Manifest]]
"""Each bundle's folder and manifest, by the bundle's name."""

_EVENTS: dict[ModelState, EventName] = {
    "ready": "model_ready",
    "unloaded": "model_unloaded",
    "failed": "model_failed",
}

LOOK_EVERY = 0.5
"""Seconds after which the next step is asked for again: values of segments change with time."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[M]):
    """One bundle at one moment: its folder, and what is loaded of it. ``problem`` says which
    segments failed to load, and why. ``model`` is None until it was opened."""

    path: Path
    manifest: Manifest
    state: ModelState
    problem: str | None
    model: M | None


class ModelRegistry(Generic[M]):
    """Finds bundles, and guards the ResidencyState of their models. Safe to call from many threads.

    ``find`` gives the bundles' folders, each time it is called. Segments run on ``lanes``.
    ``changed`` is held by whoever reads or changes ``state``. What becomes of a model is published
    as ``events``.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[Path]],
        lanes: int = 1,
        cap: float = inf,
        events: EventBus | None = None,
    ) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.state: ResidencyState[M] = ResidencyState(cap)
        self._find = find
        self._lanes = lanes
        self._found: Found = {}
        self._left_out: dict[str, str] = {}
        """Why the bundles in folders of these names were left out."""
        self._has_news = False
        self._events = events or EventBus()
        self._states: dict[str, ModelState] = {}
        self.rescan()

    def rescan(self) -> None:
        """Look for bundles again. What cannot be read is logged and left out."""
        self.use(self.scan())

    def scan(self) -> Found:
        """The bundles that are there now. What cannot be read is logged and left out."""
        found: Found = {}
        left_out: dict[str, str] = {}
        for path in self._find():
            try:
                manifest, _ = read_manifest(path)
            except BundleError as error:
                log.error("left out: %s", error)
                left_out[path.name] = str(error)
                continue
            found[manifest.name] = path, manifest
        self._left_out = left_out
        return found

    def use(self, found: Found) -> None:
        """Serve what ``scan`` found. A model that is loaded stays until it is unloaded."""
        with self.changed:
            for name, (path, manifest) in found.items():
                self._use(name, path, manifest)
            for name in self._found.keys() - found.keys():
                if self.state.slots[name].is_idle:
                    self.state.remove(name)
                    del self._found[name]

    def look_for(self, name: str) -> None:
        """Look for bundles where ``name`` is unknown. Known bundles stay as they are."""
        with self.changed:
            if name in self.state.slots:
                return
        found = self.scan()
        with self.changed:
            if name in found and name not in self.state.slots:
                self._use(name, *found[name])

    def refresh(self, name: str) -> None:
        """Read the manifest of ``name`` again. Opening the bundle reports what is wrong with it."""
        path = self.entry(name).path
        try:
            manifest, _ = read_manifest(path)
        except BundleError:
            return
        with self.changed:
            if manifest.name == name:
                self._use(name, path, manifest)

    def _use(self, name: str, path: Path, manifest: Manifest) -> None:
        """The bundle ``name`` is the one at ``path`` from its next opening on. Its slot starts anew
        if it is idle."""
        slot = self.state.slots.get(name)
        self._found[name] = path, manifest
        if slot is None or slot.is_idle:
            self.state.add(name, segment_sizes(manifest, self._lanes))

    def check_opened(self, slot: ModelSlot[M], bundle: Bundle) -> None:
        """BundleError unless ``bundle`` is the one that was found for ``slot``."""
        path, manifest = bundle.path, bundle.manifest
        if manifest.name != slot.name:
            raise BundleError(
                f"{path} holds the model {manifest.name!r} by now, not {slot.name!r}: SIGHUP makes "
                "the daemon look for bundles again"
            )
        if slot.sizes != segment_sizes(manifest, self._lanes):
            raise BundleError(f"{path} changed while it was opened: load {slot.name} again")

    @property
    def is_capped(self) -> bool:
        """Whether models come and go on demand; else they are loaded and unloaded by name."""
        return self.state.policy.cap < inf

    @property
    def is_waited_for(self) -> bool:
        """Whether something waits for a segment."""
        with self.changed:
            return any(slot.waiting_since < inf for slot in self.state.slots.values())

    def path(self, name: str) -> Path:
        return self._found[name][0]

    def entries(self) -> list[tuple[str, Entry[M]]]:
        with self.changed:
            return sorted((name, self._entry(slot)) for name, slot in self.state.slots.items())

    def models(self) -> list[M]:
        """Those that were opened."""
        return [entry.model for _, entry in self.entries() if entry.model is not None]

    def entry(self, name: str) -> Entry[M]:
        with self.changed:
            return self._entry(self.slot(name))

    def _entry(self, slot: ModelSlot[M]) -> Entry[M]:
        path, manifest = self._found[slot.name]
        if slot.model is not None:
            manifest = slot.model.bundle.manifest
        problem = None if slot.failure is None else str(slot.failure.error)
        return Entry(path, manifest, slot.state, problem, slot.model)

    def slot(self, name: str) -> ModelSlot[M]:
        """The slot of ``name``. With ``changed`` held."""
        slot = self.state.slots.get(name)
        if slot is None:
            known = ", ".join(sorted(self.state.slots)) or "none"
            why = self._left_out.get(name)
            left_out = "" if why is None else f"; its bundle was left out: {why}"
            raise ModelNotFound(f"there is no model {name!r}; known: {known}{left_out}")
        return slot

    def ready(self, name: str) -> M:
        """The opened model ``name``; an error that says why where it is not."""
        with self.changed:
            slot = self.slot(name)
            if slot.model is None:
                raise not_loaded(slot)
            return slot.model

    def notify(self) -> None:
        """What decides the next step has changed. With ``changed`` held."""
        self._has_news = True
        self.changed.notify_all()
        for slot in self.state.slots.values():
            self._publish(slot)

    def _publish(self, slot: ModelSlot[M]) -> None:
        """Publish what has become of a model since the last time."""
        state = slot.state
        if state == "loading" or state == self._states.get(slot.name, "unloaded"):
            return
        self._states[slot.name] = state
        problem = {} if slot.failure is None else {"problem": str(slot.failure.error)}
        self._events.publish(_EVENTS[state], model=slot.name, **problem)

    def wait_for_change(self) -> None:
        """Until ``notify`` was called since the last call, under a cap at most some time. With
        ``changed`` held."""
        if not self._has_news:
            self.changed.wait(LOOK_EVERY if self.is_capped else None)
        self._has_news = False


def not_loaded(slot: ModelSlot[M]) -> ModelLoading:
    """The refusal of a request for a model that no request loads."""
    why = "" if slot.failure is None else f" ({slot.failure.error})"
    return ModelLoading(
        f"model {slot.name!r} is {slot.state}{why}; POST /v1/models/{slot.name}/load loads it",
        retry_after=1.0,
    )
