"""Loads and evicts segments under a cap on memory, as the residency decides."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from delen.bundle import Bundle
from delen.engine.backends.base import Network
from delen.engine.memory import MemoryStatus, SegmentStatus, give_back, segment_bytes
from delen.engine.model import Model
from delen.engine.residence import Residence, still_loading
from delen.engine.room import KEPT_FOR, Guest, Room
from delen.engine.store import Entry, ModelStore
from delen.engine.worker import Worker
from delen.errors import BackendError, ConfigError, DelenError, ModelLoading, Overloaded
from delen.scheduler.residency import Evict, Load

log = logging.getLogger("delen.engine")

_WARM_UP_RUNS = 3
_OPENING = 0.5
"""Seconds that opening a bundle is predicted to take before one was opened."""
_MOST_WAITING = 8
"""Requests that may wait for bundles to be opened, each on a thread that others need, too."""
_MEASURING = 5.0
"""Seconds that measuring a profile is predicted to take, once it is known that there is none."""


class Opener(Protocol):
    """Opens bundles, and makes models of them; see ``delen.assembly.Assembler``."""

    def open(self, path: Path) -> tuple[Bundle, Network]: ...
    def complete(
        self, bundle: Bundle, network: Network, residence: Residence, is_whole: bool
    ) -> Model | None: ...


@dataclass(slots=True, eq=False)
class _Lodger:
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


class Loader:
    """A thread that loads and evicts segments, and what jobs ask of it.

    A segment is known to the worker as there only after it is loaded and has run, and as gone
    before it is dropped.
    """

    def __init__(self, store: ModelStore, opener: Opener, worker: Worker, cap: int) -> None:
        self._store = store
        self._opener = opener
        self._worker = worker
        self._room = Room(cap)
        self._residency = self._room.residency
        self._lodgers: dict[str, _Lodger] = {}
        self._opening = _OPENING
        self._changed = self._room.changed
        self._moving = threading.Lock()
        self._waiting = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="delen-loader", daemon=True)
        self._thread.start()

    def load(self, name: str) -> Model:
        """Load the first segment of ``name``, and keep it in memory from now on; the others follow
        as there is room. Raises ConfigError where the cap leaves no room for it, or what
        its loading raised."""
        entry = self._store.entry(name)
        with self._changed:
            lodger = self._invite(name, entry)
            self._check_room(lodger)
            lodger.error, entry.problem = None, None
            self._residency.keep(name)
            self._residency.use(name, time.monotonic(), lodger.segments)
            self._room.tell()
            return self._wait_for(lodger, None)

    def find(self, name: str, seconds: float | None) -> Model:
        """The model ``name``, which is opened if it is not. ModelLoading where that is predicted
        to take longer than ``seconds`` (None: there is no hurry), or fails."""
        entry = self._store.entry(name)
        with self._changed:
            lodger = self._invite(name, entry)
            if lodger.error is not None:
                raise _failed(lodger)
            if entry.model is not None and self._residency.depth(name) > 0:
                return entry.model
            self._check_room(lodger)
            if entry.model is not None:
                return entry.model
            wait = self._seconds_to_open(lodger)
            now = time.monotonic()
            self._residency.use(name, now, lodger.segments)
            self._residency.call(name, now + wait + KEPT_FOR)
            self._room.tell()
            is_late = seconds is not None and wait > seconds
            if is_late or self._waiting >= _MOST_WAITING:
                raise still_loading(name, wait)
            return self._wait_for(lodger, seconds)

    def unload(self, name: str) -> None:
        """Free all segments of ``name``; Overloaded while jobs of it are under way. The next
        request loads it again."""
        entry = self._store.entry(name)
        with self._moving:
            if (jobs := self._worker.remove_model(name)) > 0:
                raise Overloaded(f"model {name!r} has {jobs} jobs under way", retry_after=0.1)
            with self._changed:
                lodger = self._lodgers.get(name)
                if lodger is None:
                    return
                self._dismiss(lodger)
                entry.state, entry.problem, entry.model = "unloaded", None, None
            give_back()

    def segments(self, name: str) -> list[SegmentStatus]:
        """Where the segments of model ``name`` are."""
        manifest = self._store.entry(name).manifest
        sizes = [segment_bytes(manifest, k) for k in range(len(manifest.exits))]
        with self._changed:
            if name not in self._residency:
                return [SegmentStatus("absent", size, 0) for size in sizes]
            states = self._residency.states(name)
            needed = self._residency.references(name)
        return [
            SegmentStatus(state, size, count)
            for state, size, count in zip(states, sizes, needed, strict=True)
        ]

    def status(self) -> MemoryStatus:
        with self._changed:
            known = self._residency
            return MemoryStatus(
                known.cap, known.taken, known.loads, known.evictions, known.load_seconds
            )

    def close(self) -> None:
        with self._changed:
            self._stopping = True
            self._room.tell()
        self._thread.join()

    def _invite(self, name: str, entry: Entry) -> _Lodger:
        lodger = self._lodgers.get(name)
        if lodger is not None and lodger.entry is not entry:  # its folder was looked at anew
            self._dismiss(lodger)
            lodger = None
        if lodger is None:
            lodger = self._lodgers[name] = _Lodger(entry, Guest(self._room, name))
            sizes = [segment_bytes(entry.manifest, k) for k in range(lodger.segments)]
            self._residency.add(name, sizes)
        return lodger

    def _dismiss(self, lodger: _Lodger) -> None:
        """Free what there is of a model that no job needs. With ``_changed`` held."""
        if lodger.network is not None:
            for segment in range(lodger.segments):
                lodger.network.drop(segment)
        lodger.residence.leave()
        del self._lodgers[lodger.name]
        self._residency.forget(lodger.name)
        self._room.tell()

    def _check_room(self, lodger: _Lodger) -> None:
        """ConfigError unless the first segment has room beside those that are kept."""
        known = self._residency
        needed, beside = known.size(lodger.name, 0), known.kept_beside(lodger.name)
        if needed + beside <= known.cap:
            return
        others = f", beside {beside / 1e6:.3g} MB that loaded models keep" if beside else ""
        if lodger.network is None:
            self._dismiss(lodger)
        raise ConfigError(
            f"models.memory_mb is {known.cap / 1e6:g}: the first segment of {lodger.name} takes "
            f"{needed / 1e6:.3g} MB{others}"
        )

    def _seconds_to_open(self, lodger: _Lodger) -> float:
        waits = self._residency.waits(lodger.name, time.monotonic())
        measuring = _MEASURING if lodger.is_held else 0.0
        return self._opening + measuring + (waits[0] if waits else 0.0)

    def _wait_for(self, lodger: _Lodger, seconds: float | None) -> Model:
        """The model once it is opened and has a segment in memory. With ``_changed`` held."""
        entry, name = lodger.entry, lodger.name

        def is_settled() -> bool:
            if self._lodgers.get(name) is not lodger or self._stopping:
                return True
            is_there = entry.model is not None and self._residency.depth(name) > 0
            return is_there or lodger.error is not None

        self._waiting += 1
        try:
            self._changed.wait_for(is_settled, seconds)
        finally:
            self._waiting -= 1
        if self._lodgers.get(name) is not lodger:
            raise ModelLoading(f"model {name!r} was unloaded meanwhile", retry_after=1.0)
        if lodger.error is not None:
            raise lodger.error
        if entry.model is None:
            raise still_loading(name, self._seconds_to_open(lodger))
        return entry.model

    def _loop(self) -> None:
        while True:
            with self._moving:
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

    def _evict(self, lodger: _Lodger, evict: Evict) -> None:
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

    def _load(self, lodger: _Lodger, segment: int) -> None:
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
                self._opening = max(_OPENING, time.monotonic() - began - seconds)
        else:
            self._worker.keep_resident(lodger.name, segment + 1)
        with self._changed:
            if entry.model is not None:
                entry.state = "ready"
            self._room.tell()

    def _complete(self, lodger: _Lodger, depth: int) -> None:
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

    def _hold_whole(self, lodger: _Lodger) -> None:
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

    def _release_whole(self, lodger: _Lodger) -> None:
        for segment in range(lodger.segments):
            self._residency.release(lodger.name, segment)
        lodger.is_held = False

    def _give_up(self, lodger: _Lodger, segment: int, error: DelenError) -> None:
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


def _failed(lodger: _Lodger) -> ModelLoading:
    return ModelLoading(
        f"model {lodger.name!r} is failed ({lodger.error}); POST /v1/models/{lodger.name}/load "
        "tries it again",
        retry_after=1.0,
    )
