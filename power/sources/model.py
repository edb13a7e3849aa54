"""The processor model: processor time x stated watts. An estimate, and marked as one."""

from __future__ import annotations

import time
from typing import Literal

from power.sources.source import PowerReading

NAME = "model"
SCOPE = "processor"
INTERVAL = 0.05
"""Seconds: the kernel counts processor time in steps, which a shorter reading would show."""


class ProcessorModel:
    """This process's own dynamic power, from the processor time that the kernel counts for it.

    Every busy second of a core costs ``watts_per_core`` joules; an idle one costs none. A reading
    covers the time since the one before, so the first one covers it since the start.
    """

    name = NAME
    kind: Literal["measured", "estimated"] = "estimated"
    scope = SCOPE
    interval = INTERVAL

    def __init__(self, watts_per_core: float) -> None:
        self._watts_per_core = watts_per_core
        self._last_time = time.monotonic()
        self._last_processor = time.process_time()

    def read(self) -> PowerReading:
        now, processor = time.monotonic(), time.process_time()
        elapsed = max(now - self._last_time, 1e-9)
        watts = (processor - self._last_processor) / elapsed * self._watts_per_core
        self._last_time, self._last_processor = now, processor
        return PowerReading(now, {SCOPE: watts}, watts)

    def close(self) -> None:
        """Nothing is held open."""
