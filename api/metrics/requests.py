"""Prometheus metrics of what the executor and the API did."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from api.metrics.statistics import ModelStatistics
from api.metrics.tenants import MAX_TENANTS, OTHERS
from delen.core.result import Result
from delen.core.work import Work

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """Counts for ``GET /metrics``. An Observer of the executor.

    An answer that leaves is only noted, since it would wait for more; it is counted with its batch,
    or before a scrape. The counts are the same whichever is first.
    """

    def __init__(self) -> None:
        self._uncounted: deque[tuple[Result, float]] = deque()
        self._statistics = ModelStatistics()
        self._counting = threading.Lock()
        self._registry = CollectorRegistry()
        self._tenants: set[str] = set()
        self._answers = _labelled(
            Counter(
                "delen_answers",
                "Requests answered",
                ["model", "tenant", "exit", "reason"],
                registry=self._registry,
            )
        )
        self._missed = _labelled(
            Counter(
                "delen_bounds_missed",
                "Bounds set by a request and not kept by its answer",
                ["model", "bound"],
                registry=self._registry,
            )
        )
        self._latency = _labelled(
            Histogram(
                "delen_latency_seconds",
                "From a request's arrival to its answer",
                ["model"],
                buckets=_SECONDS,
                registry=self._registry,
            )
        )
        self._queue = _labelled(
            Histogram(
                "delen_queue_seconds",
                "From a request's arrival to its first segment",
                ["model"],
                buckets=_SECONDS,
                registry=self._registry,
            )
        )
        self._errors = Counter(
            "delen_errors", "Requests refused or failed", ["code"], registry=self._registry
        )
        self._segments = _labelled(
            Counter(
                "delen_segment_seconds",
                "Time spent in segments",
                ["model", "segment"],
                registry=self._registry,
            )
        )
        self._batches = _labelled(
            Histogram(
                "delen_batch_size",
                "Jobs that ran a segment together",
                ["model"],
                buckets=(1, 2, 4, 8, 16, 32, 64),
                registry=self._registry,
            )
        )
        self._segment_failures = Counter(
            "delen_segment_failures",
            "Batches whose segment failed, or gave numbers that are not finite",
            ["model", "segment"],
            registry=self._registry,
        )
        self._policy_failures = Counter(
            "delen_policy_failures",
            "Decisions that the exit policy failed to make",
            ["model"],
            registry=self._registry,
        )
        self._dispatch_failures = Counter(
            "delen_dispatch_failures",
            "Calls in which the dispatch policy failed, or took too long",
            registry=self._registry,
        )
        self._labelled = Counter(
            "delen_labelled_answers",
            "Answers whose label was posted back",
            ["model", "outcome"],
            registry=self._registry,
        )
        self._audited = Counter(
            "delen_audited_answers",
            "Early answers that were run on to the deepest exit",
            ["model", "outcome"],
            registry=self._registry,
        )

    def answered(self, result: Result) -> None:
        self._uncounted.append((result, time.time()))

    def _count_answers(self) -> None:
        with self._counting:
            while self._uncounted:
                result, now = self._uncounted.popleft()
                self._count(result)
                self._statistics.answered(result, now)

    def _count(self, result: Result) -> None:
        receipt, model = result.receipt, result.model
        tenant = self._tenant_label(result.tenant)
        self._answers(model, tenant, result.exit, result.reason).inc()
        self._latency(model).observe(receipt.latency.value)
        self._queue(model).observe(receipt.latency.queue)
        for bound in ("latency", "accuracy", "energy"):
            if getattr(receipt, bound).met is False:
                self._missed(model, bound).inc()

    @property
    def statistics(self) -> ModelStatistics:
        """What was counted of each model up to now."""
        self._count_answers()
        return self._statistics

    def ran(self, work: Work) -> None:
        self._count_answers()
        self._statistics.ran(work)
        self._segments(work.model, work.segment).inc(work.seconds)
        self._batches(work.model).observe(work.batch)

    def segment_failed(self, model: str, segment: int) -> None:
        self._segment_failures.labels(model, segment).inc()

    def policy_failed(self, model: str) -> None:
        self._policy_failures.labels(model).inc()

    def dispatch_failed(self, times: int) -> None:
        self._dispatch_failures.inc(times)

    def audited(self, model: str, agreed: bool) -> None:
        self._audited.labels(model, "agreed" if agreed else "disagreed").inc()

    def labelled(self, model: str, right: int, wrong: int) -> None:
        self._labelled.labels(model, "right").inc(right)
        self._labelled.labels(model, "wrong").inc(wrong)

    def failed(self, model: str, seconds: float) -> None:
        """A request for ``model`` ended without an answer after ``seconds``."""
        self._statistics.failed(model, seconds)

    def refused(self, code: str) -> None:
        self._errors.labels(code).inc()

    def exposition(self, models: Collection[str]) -> bytes:
        """The metrics as Prometheus reads them, of ``models`` and of what belongs to no model. The
        counts of a bundle that comes back go on."""
        self._count_answers()
        return generate_latest(_OfModels(self._registry, models))

    def include(self, collector: Collector) -> None:
        """Expose what ``collector`` collects too."""
        self._registry.register(collector)

    def _tenant_label(self, tenant: str) -> str:
        if tenant in self._tenants or len(self._tenants) < MAX_TENANTS:
            self._tenants.add(tenant)
            return tenant
        return OTHERS


class _OfModels(Collector):
    """The metrics of ``registry`` without the series of other models than ``models``."""

    def __init__(self, registry: CollectorRegistry, models: Collection[str]) -> None:
        self._registry = registry
        self._models = models

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [
                sample
                for sample in metric.samples
                if "model" not in sample.labels or sample.labels["model"] in self._models
            ]
            yield metric


def _labelled(metric: MetricWrapperBase) -> Callable[..., Any]:
    """The metric's ``labels``, remembered: the executor needs them several times a segment."""
    return lru_cache(maxsize=4096)(metric.labels)
