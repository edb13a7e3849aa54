from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry

from api.metrics.failures import FailureCollector
from delen.core.failures import FailureCounter, failure_counts


def test_failures_are_counted_by_where() -> None:
    counter = FailureCounter("made_up", logging.getLogger("delen.test"))
    registry = CollectorRegistry()
    registry.register(FailureCollector())
    labels = {"where": "made_up"}
    before = failure_counts()["made_up"]
    assert registry.get_sample_value("delen_internal_failures_total", labels) == before
    counter.add(2)
    assert registry.get_sample_value("delen_internal_failures_total", labels) == before + 2
