"""The bundles that can be served, and which of them are loaded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from delen.bundle.manifest import Manifest, read_manifest
from delen.engine.model import Model
from delen.errors import BundleError, ModelLoading, ModelNotFound, Overloaded

log = logging.getLogger("delen.engine")

State = Literal["unloaded", "loading", "ready", "failed"]


@dataclass(slots=True)
class Entry:
    """One bundle by name. ``problem`` says why it failed to load, if it did."""

    path: Path
    manifest: Manifest
    state: State = "unloaded"
    problem: str | None = None
    model: Model | None = None


class ModelRegistry:
    """Knows bundles, and loads and unloads them, one at a time.

    ``find`` gives the bundles' folders, each time it is called; ``load`` makes a Model of one.
    """

    def __init__(self, find: Callable[[], Iterable[Path]], load: Callable[[Path], Model]) -> None:
        self._find = find
        self._load = load
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self.rescan()

    def rescan(self) -> None:
        """Look for bundles again. What cannot be read is logged and left out."""
        found: dict[str, Entry] = {}
        for path in self._find():
            try:
                manifest, _ = read_manifest(path)
            except BundleError as error:
                log.error("left out: %s", error)
                continue
            found[manifest.name] = Entry(path, manifest)
        with self._lock:
            kept = {
                name: entry
                for name, entry in self._entries.items()
                if entry.model is not None or entry.state == "loading"
            }
            self._entries = {**found, **kept}

    def entries(self) -> list[tuple[str, Entry]]:
        with self._lock:
            return sorted(self._entries.items())

    def models(self) -> list[Model]:
        """Those that are loaded."""
        with self._lock:
            entries = list(self._entries.values())
        return [model for entry in entries if (model := entry.model) is not None]

    def entry(self, name: str) -> Entry:
        with self._lock:
            entry = self._entries.get(name)
            known = ", ".join(sorted(self._entries)) or "none"
        if entry is None:
            raise ModelNotFound(f"there is no model {name!r}; known: {known}")
        return entry

    def ready(self, name: str) -> Model:
        """The loaded model ``name``; an error that says why where it is not loaded."""
        entry = self.entry(name)
        model = entry.model
        if model is None:
            why = f" ({entry.problem})" if entry.problem else ""
            raise ModelLoading(
                f"model {name!r} is {entry.state}{why}; POST /v1/models/{name}/load loads it",
                retry_after=1.0,
            )
        return model

    def load(self, name: str) -> Model:
        """Load ``name`` if it is not; BundleError or BackendError when that fails."""
        entry = self.entry(name)
        with self._loading:
            if entry.model is not None:
                return entry.model
            entry.state, entry.problem = "loading", None
            try:
                entry.model = self._load(entry.path)
            except Exception as error:
                entry.state, entry.problem = "failed", str(error)
                raise
            entry.state = "ready"
            return entry.model

    def unload(self, name: str, in_use: Callable[[str], int]) -> None:
        """Forget the loaded model ``name``; Overloaded while jobs of it are under way."""
        entry = self.entry(name)
        with self._loading:
            if (jobs := in_use(name)) > 0:
                raise Overloaded(f"model {name!r} has {jobs} jobs under way", retry_after=0.1)
            entry.state, entry.problem, entry.model = "unloaded", None, None
