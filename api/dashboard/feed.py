"""Figures once a second, for all who watch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from delen.core.failures import FailureCounter
from delen.wire.figures import Figures

_EVERY = 1.0
"""Seconds."""


class FiguresFeed:
    """Has ``make`` called on one of ``threads``, once a second while there are readers and never
    twice at the same time. It belongs to the event loop."""

    def __init__(self, make: Callable[[], Figures], threads: Executor) -> None:
        self._make = make
        self._threads = threads
        self._wakes: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._failures = FailureCounter("figures", logging.getLogger("delen.api"))
        self.count = 0
        """Figures made until now."""
        self.latest: Figures | None = None

    def join(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` whenever there are new figures."""
        self._wakes.append(wake)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def leave(self, wake: Callable[[], None]) -> None:
        self._wakes.remove(wake)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._wakes:
                try:
                    self.latest = await loop.run_in_executor(self._threads, self._make)
                except Exception as error:
                    self._failures.failed(error, "figures could not be made; the next are tried")
                else:
                    self.count += 1
                    for wake in self._wakes:
                        wake()
                await asyncio.sleep(_EVERY)
        finally:
            self._task = None
