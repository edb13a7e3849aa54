"""Models that are loaded on demand, and share a cap on memory."""

from __future__ import annotations

import time

from delen.engine.executor import Executor
from delen.engine.loading.thread import Lodger, Mover, Opener
from delen.engine.model import Model
from delen.engine.registry import Entry, ModelRegistry
from delen.errors import ConfigError, ModelLoading, Overloaded
from delen.residency.lease import still_loading
from delen.residency.shared_state import KEPT_FOR, Guest, Room
from delen.residency.sizes import MemoryStatus, SegmentStatus, give_back, segment_bytes

_MOST_WAITING = 8
"""Requests that may wait for bundles to be opened, each on a thread that others need, too."""
_MEASURING = 5.0
"""Seconds that measuring a profile is predicted to take, once it is known that there is none."""


class Loader:
    """The models that share ``cap`` bytes of memory; safe to call from many threads."""

    def __init__(self, store: ModelRegistry, opener: Opener, worker: Executor, cap: int) -> None:
        self._store = store
        self._worker = worker
        self._lanes, _ = worker.lanes()
        self._room = Room(cap)
        self._residency = self._room.residency
        self._changed = self._room.changed
        self._lodgers: dict[str, Lodger] = {}
        self._waiting = 0
        self._is_closed = False
        self._mover = Mover(self._room, self._lodgers, opener, worker)

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
        with self._mover.moving:
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
        sizes = [segment_bytes(manifest, k, self._lanes) for k in range(len(manifest.exits))]
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
            self._is_closed = True
        self._mover.close()

    def _invite(self, name: str, entry: Entry) -> Lodger:
        lodger = self._lodgers.get(name)
        if lodger is not None and lodger.entry is not entry and not self._is_loading(name):
            self._dismiss(lodger)  # its folder was looked at anew
            lodger = None
        if lodger is None:
            lodger = self._lodgers[name] = Lodger(entry, Guest(self._room, name))
            sizes = [segment_bytes(entry.manifest, k, self._lanes) for k in range(lodger.segments)]
            self._residency.add(name, sizes)
        return lodger

    def _is_loading(self, name: str) -> bool:
        return "loading" in self._residency.states(name)

    def _dismiss(self, lodger: Lodger) -> None:
        """Free what there is of a model that no job needs. With ``_changed`` held."""
        if lodger.network is not None:
            for segment in range(lodger.segments):
                lodger.network.drop(segment)
        lodger.residence.leave()
        del self._lodgers[lodger.name]
        self._residency.forget(lodger.name)
        self._room.tell()

    def _check_room(self, lodger: Lodger) -> None:
        """ConfigError unless the first segment has room beside those that are kept."""
        known = self._residency
        needed, beside = known.size(lodger.name, 0), known.kept_beside(lodger.name)
        if needed + beside <= known.cap:
            return
        others = f", beside {beside / 1e6:.3g} MB that loaded models keep" if beside else ""
        if lodger.network is None and not self._is_loading(lodger.name):
            self._dismiss(lodger)
        raise ConfigError(
            f"models.memory_mb is {known.cap / 1e6:g}: the first segment of {lodger.name} takes "
            f"{needed / 1e6:.3g} MB{others}"
        )

    def _seconds_to_open(self, lodger: Lodger) -> float:
        waits = self._residency.waits(lodger.name, time.monotonic())
        measuring = _MEASURING if lodger.is_held else 0.0
        return self._mover.opening + measuring + (waits[0] if waits else 0.0)

    def _wait_for(self, lodger: Lodger, seconds: float | None) -> Model:
        """The model once it is opened and has a segment in memory. With ``_changed`` held."""
        entry, name = lodger.entry, lodger.name

        def is_settled() -> bool:
            if self._lodgers.get(name) is not lodger or self._is_closed:
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


def _failed(lodger: Lodger) -> ModelLoading:
    return ModelLoading(
        f"model {lodger.name!r} is failed ({lodger.error}); POST /v1/models/{lodger.name}/load "
        "tries it again",
        retry_after=1.0,
    )
