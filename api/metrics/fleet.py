"""Prometheus metrics of a daemon in a fleet, read from the runtime at each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from delen.engine.runtime import Runtime


class FleetCollector(Collector):
    """What ``runtime`` was asked to do, and how busy it is."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        directives = self._runtime.directives
        led = directives.in_force()
        yield CounterMetricFamily(
            "delen_directives",
            "Directives of a fleet that were accepted",
            value=directives.accepted,
        )
        yield GaugeMetricFamily(
            "delen_directives_left_seconds",
            "Until the directives in force run out; 0 where the daemon decides alone",
            value=0.0 if led is None else led[1],
        )
        yield CounterMetricFamily(
            "delen_fleet_limited",
            "Inputs admitted with a plan that a ceiling of the fleet limited",
            value=directives.limited,
        )
        yield GaugeMetricFamily(
            "delen_utilisation",
            "Share of the lanes that was busy in the last seconds",
            value=self._runtime.utilisation(),
        )
