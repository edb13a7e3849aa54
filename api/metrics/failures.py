"""The Prometheus metric of failures inside the daemon."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from delen.core.failures import failure_counts


class FailureCollector(Collector):
    """Counts by where they happened; 0 where there was none."""

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "delen_internal_failures",
            "Failures inside the daemon; the first of each kind is logged",
            labels=["where"],
        )
        for where, count in sorted(failure_counts().items()):
            family.add_metric([where], count)
        yield family
