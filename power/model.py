"""The processor model: processor time x stated watts. An estimate, and marked as one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from delen.energy import EnergyAccount
from delen.profile import SegmentCost
from delen.result import EnergyKind
from power.source import PowerReading

NAME = "model"
SCOPE = "processor"


@dataclass(frozen=True, slots=True)
class ProcessorAccount:
    """Every busy second of a core costs ``watts_per_core`` joules; an idle one costs none."""

    watts_per_core: float
    kind: EnergyKind = "estimated"
    source: str | None = NAME
    scope: str | None = SCOPE

    def planned(self, cost: SegmentCost) -> float | None:
        return cost.processor * self.watts_per_core

    def used(self, cost: SegmentCost, processor: float) -> float | None:
        return processor * self.watts_per_core


class ProcessorModel:
    """This process's own dynamic power, from the processor time that the kernel counts for it.

    A reading covers the time since the one before, so the first one covers it since the start.
    """

    name = NAME
    kind: Literal["measured", "estimated"] = "estimated"
    scope = SCOPE

    def __init__(self, watts_per_core: float) -> None:
        self.account: EnergyAccount = ProcessorAccount(watts_per_core)
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
