"""How far an event loop is behind."""

from __future__ import annotations

import asyncio
import time


class LoopWatch:
    """Asks ``loop``, which runs on another thread, to come round every now and then."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked: float | None = None

    def seconds_behind(self) -> float:
        """How long ago the loop was asked to come round, and has not; 0 once it has, and once it is
        closed. To be called every now and then, by any thread."""
        if self._loop.is_closed():
            return 0.0
        if (asked := self._asked) is not None:
            return time.monotonic() - asked
        self._asked = time.monotonic()
        self._loop.call_soon_threadsafe(self._come_round)
        return 0.0

    def _come_round(self) -> None:
        self._asked = None
