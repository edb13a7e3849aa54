"""The thread that moves segments into memory and out of it, as the residency decides."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from delen.bundle.manifest import Bundle
from delen.engine.backends.base import Network
from delen.engine.executor import Executor
from delen.engine.model import Model
from delen.engine.registry import Entry
from delen.errors import BackendError, ConfigError, DelenError
from delen.residency.lease import Residence
from delen.residency.policy import Evict, Load
from delen.residency.shared_state import Guest, Room
from delen.residency.sizes import give_back

log = logging.getLogger("delen.engine")

OPENING = 0.5
"""Seconds that opening a bundle is predicted to take before one was opened."""
_WARM_UP_RUNS = 3


class Opener(Protocol):
    """Opens bundles, and makes models of them; see ``delen.daemon.build_model.ModelBuilder``."""

    def open(self, path: Path) -> tuple[Bundle, Network]: ...
    def complete(
        self, bundle: Bundle, network: Network, residence: Residence, is_whole: bool
    ) -> Model | None: ...


@dataclass(slots=True, eq=False)
class Lodger:
    """A model under the cap. ``network`` is None until its bundle is opened. ``is_held`` while all
    of it is kept for its profile to be measured. ``error`` says why it cannot answer."""

    entry: Entry
    residence: Guest
    bundle: Bundle | None = None
    network: Network | None = None
    error: DelenError | None = None
    is_held: bool = False

    @property
    def name(self) -> str:
        return self.entry.manifest.name

    @property
    def segments(self) -> int:
        return len(self.entry.manifest.exits)


class Mover:
    """Loads and evicts segments of ``lodgers``, models by name, which it does not change.

    A segment is known to the worker as there only after it is loaded and has run, and as gone
    before it is dropped. ``moving`` is held while it does anything. ``opening`` are the seconds
    that opening a bundle is predicted to take.
    """

    def __init__(
        self, room: Room, lodgers: Mapping[str, Lodger], opener: Opener, worker: Executor
    ) -> None:
        self.moving = threading.Lock()
        self.opening = OPENING
        self._room = room
        self._changed = room.changed
        self._residency = room.residency
        self._lodgers = lodgers
        self._opener = opener
        self._worker = worker
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="delen-loader", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._stopping = True
            self._room.tell()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self.moving:
                with self._changed:
                    step = None if self._stopping else self._residency.next(time.monotonic())
                if step is not None:
                    self._follow(step)
                    continue
            with self._changed:
                if self._stopping:
                    return
                self._room.wait_for_news()

    def _follow(self, step: Load | Evict) -> None:
        lodger = self._lodgers[step.model]
        if isinstance(step, Evict):
            self._evict(lodger, step)
            return
        try:
            self._load(lodger, step.segment)
        except DelenError as error:
            self._give_up(lodger, step.segment, error)
        except Exception as error:
            log.exception("model %s: segment %d failed to load", step.model, step.segment)
            self._give_up(lodger, step.segment, BackendError(f"the loader failed: {error}"))

    def _evict(self, lodger: Lodger, evict: Evict) -> None:
        assert lodger.network is not None
        self._worker.keep_resident(lodger.name, evict.segment)
        with self._changed:
            is_free = self._residency.evict(evict)
            if is_free and evict.segment == 0:
                lodger.entry.state = "unloaded"
        if is_free:
            lodger.network.drop(evict.segment)
            give_back()
            log.debug("model %s: segment %d has left memory", lodger.name, evict.segment)
        else:
            self._worker.keep_resident(lodger.name, evict.segment + 1)
        with self._changed:
            self._room.tell()

    def _load(self, lodger: Lodger, segment: int) -> None:
        entry = lodger.entry
        if segment == 0:
            entry.state = "loading"
        began = time.monotonic()
        if lodger.bundle is None or lodger.network is None:
            lodger.bundle, lodger.network = self._opener.open(entry.path)
        network, opened = lodger.network, time.monotonic()
        network.load(segment)
        for _ in range(_WARM_UP_RUNS):
            network.run(segment, [network.blank(segment)])
        give_back()
        seconds = time.monotonic() - opened
        log.debug("model %s: segment %d is in memory", lodger.name, segment)
        with self._changed:
            self._residency.loaded(lodger.name, seconds)
        if entry.model is None:
            is_measured = lodger.is_held
            self._complete(lodger, segment + 1)
            if not is_measured:
                self.opening = max(OPENING, time.monotonic() - began - seconds)
        else:
            self._worker.keep_resident(lodger.name, segment + 1)
        with self._changed:
            if entry.model is not None:
                entry.state = "ready"
            self._room.tell()

    def _complete(self, lodger: Lodger, depth: int) -> None:
        """Make the model, of which ``depth`` segments are loaded. Without a profile, all of them
        are loaded for one to be measured."""
        assert lodger.bundle is not None and lodger.network is not None
        model = self._opener.complete(
            lodger.bundle, lodger.network, lodger.residence, depth == lodger.segments
        )
        with self._changed:
            if model is None:
                self._hold_whole(lodger)
                return
            if lodger.is_held:
                self._release_whole(lodger)
            self._residency.weigh(lodger.name, model.planner.accuracies)
        self._worker.keep_resident(lodger.name, depth)
        self._worker.add_model(model)
        lodger.entry.model = model

    def _hold_whole(self, lodger: Lodger) -> None:
        if lodger.is_held:
            return
        if self._residency.reach(lodger.name) < lodger.segments:
            sizes = [self._residency.size(lodger.name, k) for k in range(lodger.segments)]
            raise ConfigError(
                f"{lodger.name} has no profile of this device, and measuring one takes all its "
                f"{sum(sizes) / 1e6:.3g} MB at once, for which models.memory_mb "
                f"{self._residency.cap / 1e6:g} leaves no room: run "
                f"delen profile --model {lodger.name}"
            )
        self._residency.hold(lodger.name, 0, lodger.segments - 1)
        lodger.is_held = True

    def _release_whole(self, lodger: Lodger) -> None:
        for segment in range(lodger.segments):
            self._residency.release(lodger.name, segment)
        lodger.is_held = False

    def _give_up(self, lodger: Lodger, segment: int, error: DelenError) -> None:
        """What was to be loaded cannot be. Of a model that serves already, what is there stays."""
        log.error("model %s: segment %d cannot be loaded: %s", lodger.name, segment, error)
        entry, name = lodger.entry, lodger.name
        with self._changed:
            entry.problem = str(error)
            if segment == 0 or entry.model is None:
                entry.state, lodger.error = "failed", error
            if entry.model is None:
                lodger.bundle = lodger.network = None
                lodger.is_held = False
                self._residency.empty(name)
            self._residency.failed(name)
            self._room.tell()
        give_back()
        if entry.model is not None:
            self._worker.give_up_on(name, segment, error)
