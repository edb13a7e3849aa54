"""What the statistics extension of the Open Inference Protocol counts of each model."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field

from delen.core.result import Result


@dataclass(slots=True)
class Total:
    """How often, and for how many seconds in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        self.count += times
        self.seconds += seconds


@dataclass(slots=True)
class ModelCounts:
    """``success`` and ``fail`` are inputs from arrival to answer or error, ``queue`` is waiting in
    the former. ``executions`` are runs of the first segment, which each input passes once, and
    ``batches`` runs of all segments by their size. ``last`` is the time of the last answer."""

    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    executions: int = 0
    batches: dict[int, Total] = field(default_factory=lambda: defaultdict(Total))
    last: float = 0.0


class ModelStatistics:
    """Counts by model. Many threads may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: defaultdict[str, ModelCounts] = defaultdict(ModelCounts)

    def of(self, model: str) -> ModelCounts:
        """What was counted of ``model`` since the start."""
        return self._models.get(model) or ModelCounts()

    def answered(self, result: Result, now: float) -> None:
        latency = result.receipt.latency
        with self._lock:
            counts = self._models[result.model]
            counts.success.add(latency.value)
            counts.queue.add(latency.queue)
            counts.last = now

    def ran(self, model: str, segment: int, batch: int, times: int, seconds: float) -> None:
        """Batches of this size ran ``segment`` so many ``times``, for ``seconds`` in all."""
        with self._lock:
            counts = self._models[model]
            if segment == 0:
                counts.executions += times
            counts.batches[batch].add(seconds, times)

    def failed(self, model: str, seconds: float) -> None:
        with self._lock:
            self._models[model].fail.add(seconds)
