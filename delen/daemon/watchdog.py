"""Sees threads that died and what hangs, so that the daemon does not live on without them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from delen.engine.health import EngineHealth

log = logging.getLogger("delen")

_LASTS = 30.0
"""Seconds that something may go on hanging before the daemon ends."""
_LOOP_HANGS = 10.0
"""Seconds after which an event loop is said to stand."""


class Watchdog:
    """Watches threads, and what ``health`` says of the engine. Times are in seconds,
    ``time.monotonic``."""

    def __init__(self, health: EngineHealth) -> None:
        self._health = health
        self._threads: list[threading.Thread] = []
        self._loops: dict[str, Callable[[], float]] = {}
        self._hangs_since: float | None = None

    def watch_loop(self, protocol: str, behind: Callable[[], float]) -> None:
        """By how many seconds the event loop that serves ``protocol`` is ``behind``."""
        self._loops[protocol] = behind

    def watch_threads(self) -> None:
        """Those that live now and are named ``delen-...``, and those before, are to live until the
        daemon ends."""
        ours = [t for t in threading.enumerate() if t.name.startswith("delen-")]
        self._threads += [t for t in ours if t not in self._threads]

    def problems(self, now: float) -> list[str]:
        """A sentence for each thread that has died and each call that hangs."""
        return [*self._dead(), *self._hangs(now)]

    def is_over(self, now: float) -> bool:
        """Whether the daemon is to end, which is logged: a thread has died, or something hangs for
        too long. To be called every now and then."""
        hangs = self._hangs(now)
        if not hangs:
            self._hangs_since = None
        elif self._hangs_since is None:
            self._hangs_since = now
            log.error("%s", "; ".join(hangs))
        lasting = self._hangs_since is not None and now - self._hangs_since >= _LASTS
        reasons = [*self._dead(), *(hangs if lasting else [])]
        if reasons:
            log.critical("the daemon ends: %s", "; ".join(reasons))
        return bool(reasons)

    def _hangs(self, now: float) -> list[str]:
        hangs = self._health.hangs(now)
        for protocol, behind in self._loops.items():
            if (seconds := behind()) > _LOOP_HANGS:
                hangs.append(f"the event loop of {protocol} has stood for {seconds:.1f} s")
        return hangs

    def _dead(self) -> list[str]:
        ours = [t for t in self._threads if t.name.startswith("delen-")]
        return [f"the thread {t.name} has died" for t in ours if not t.is_alive()]
