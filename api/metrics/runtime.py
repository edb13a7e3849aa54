"""Prometheus metrics of the loaded models and the lanes, read from the runtime at each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from delen.engine.runtime import Runtime


class RuntimeCollector(Collector):
    """Metrics of ``runtime``."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        lanes, busy = self._runtime.lanes()
        yield GaugeMetricFamily("delen_lanes", "Batches that may run at once", value=lanes)
        yield GaugeMetricFamily("delen_lanes_busy", "Batches that run", value=busy)
        slowdown = GaugeMetricFamily(
            "delen_slowdown", "Measured time over profiled time, recent mean", labels=["model"]
        )
        jobs = GaugeMetricFamily("delen_jobs", "Inputs queued or running", labels=["model"])
        holds = GaugeMetricFamily(
            "delen_guarantee_holds",
            "1 while the calibration holds; 0 once it is refuted, and while inputs are others",
            labels=["model"],
        )
        corun = GaugeMetricFamily(
            "delen_corun_slowdown",
            "Time of a segment while so many other lanes are busy, over its time alone",
            labels=["model", "others"],
        )
        for model in self._runtime.store.models():
            slowdown.add_metric([model.name], model.costs.slowdown.mean)
            jobs.add_metric([model.name], self._runtime.jobs(model.name))
            holds.add_metric([model.name], float(model.monitor.unguaranteed is None))
            for others, factor in enumerate(model.costs.interference.factors):
                corun.add_metric([model.name, str(others)], factor)
        handovers = CounterMetricFamily(
            "delen_handovers",
            "Jobs handed over to a peer, by what became of them",
            labels=["peer", "outcome"],
        )
        for (peer, outcome), count in sorted(self._runtime.handovers().items()):
            handovers.add_metric([peer, outcome], count)
        yield from (slowdown, jobs, holds, corun, handovers)
