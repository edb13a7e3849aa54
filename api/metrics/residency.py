"""Where segments are, and what they take of memory: for a model's description and the metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from delen.engine.runtime import Runtime
from delen.residency.state import MemoryStatus, SegmentStatus
from delen.wire.message import Megabytes
from delen.wire.models import Memory, Segment

IN_MEMORY = ("resident", "leaving")


def describe(segments: Sequence[SegmentStatus], memory: MemoryStatus) -> Memory:
    """One model's segments, and all models' memory."""
    return Memory(
        segments=tuple(
            Segment(index, segment.state, Megabytes(segment.bytes), segment.leases)
            for index, segment in enumerate(segments)
        ),
        resident=Megabytes(resident_bytes(segments)),
        taken=Megabytes(memory.taken),
        cap=Megabytes(memory.cap),
    )


def resident_bytes(segments: Sequence[SegmentStatus]) -> int:
    return sum(segment.bytes for segment in segments if segment.state in IN_MEMORY)


class ResidencyCollector(Collector):
    """Gauges and counters of a runtime with a cap on memory."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        memory = self._runtime.memory()
        if memory is None:
            return
        resident = GaugeMetricFamily(
            "delen_resident_bytes",
            "Memory of a model's loaded segments, estimated",
            labels=["model"],
        )
        for name, _ in self._runtime.store.entries():
            resident.add_metric([name], resident_bytes(self._runtime.segments(name) or []))
        yield resident
        yield GaugeMetricFamily(
            "delen_memory_cap_bytes", "Cap on the memory of segments", value=memory.cap
        )
        yield GaugeMetricFamily(
            "delen_memory_taken_bytes",
            "Memory of all loaded segments and of the one being loaded, estimated",
            value=memory.taken,
        )
        yield CounterMetricFamily("delen_segment_loads", "Segments loaded", value=memory.loads)
        yield CounterMetricFamily(
            "delen_segment_evictions", "Segments evicted or unloaded", value=memory.evictions
        )
        yield CounterMetricFamily(
            "delen_segment_load_seconds", "Time spent loading segments", value=memory.load_seconds
        )
