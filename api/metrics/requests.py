"""Prometheus metrics of what the executor and the API did."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Collection, Iterator

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from api.metrics.recent import RecentLog
from api.metrics.statistics import ModelStatistics
from api.metrics.tallies import CounterTally, HistogramTally
from api.metrics.tenants import MAX_TENANTS, OTHERS
from delen.core.result import AccuracyOutcome, EnergyOutcome, LatencyOutcome, Result
from delen.core.variant import model_of
from delen.core.work import Work
from delen.wire.figures import Outcomes, RecentAnswers

CONTENT_TYPE = CONTENT_TYPE_LATEST
_COUNTED_AT_ONCE = 32
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_OVER_SECONDS = (-1, -0.1, -0.05, -0.02, -0.01, -0.005, -0.002, 0, 0.002, 0.005, 0.01, 0.1, 1)
_OVER_ACCURACY = (-0.2, -0.1, -0.05, -0.02, -0.01, 0, 0.01, 0.02, 0.05, 0.1, 0.2)
_OVER_JOULES = (-1, -0.1, -0.05, -0.02, -0.01, -0.005, -0.002, 0, 0.002, 0.005, 0.01, 0.1, 1)
_BOUNDS = ("latency", "accuracy", "energy")

Outcome = LatencyOutcome | AccuracyOutcome | EnergyOutcome


class Metrics:
    """Counts for ``GET /metrics``. An Observer of the executor.

    What leaves or ran is only noted, since requests would wait for more. It is counted a few dozen
    at once, which takes a third of the time, or before a scrape: the counts are the same.
    """

    def __init__(self) -> None:
        self._noted: deque[tuple[Result, float] | Work] = deque()
        self._statistics = ModelStatistics()
        self._recent = RecentLog()
        self._counting = threading.Lock()
        self._registry = CollectorRegistry()
        self._tenants: set[str] = set()
        self._answers = CounterTally(
            "delen_answers", "Requests answered", ["model", "tenant", "exit", "reason"]
        )
        self._kept, self._missed = (
            CounterTally(
                f"delen_bounds_{outcome}",
                f"Bounds set by a request and {how} by its answer",
                ["model", "tenant", "bound"],
            )
            for outcome, how in (("kept", "kept"), ("missed", "not kept"))
        )
        self._over = {
            "latency": HistogramTally(
                "delen_latency_over_bound_seconds",
                "Latency less its bound; up to 0 is kept",
                _OVER_SECONDS,
            ),
            "accuracy": HistogramTally(
                "delen_accuracy_over_floor",
                "Accuracy of the plan less its floor; from 0 on is kept",
                _OVER_ACCURACY,
            ),
            "energy": HistogramTally(
                "delen_energy_over_bound_joules",
                "Energy, as known when the answer left, less its bound; up to 0 is kept",
                _OVER_JOULES,
            ),
        }
        self._planned_accuracy = CounterTally(
            "delen_planned_accuracy",
            "Sum of the accuracies that answers' plans expected",
            ["model"],
        )
        self._expected_accuracy = CounterTally(
            "delen_expected_accuracy",
            "Sum of the accuracies to expect of those answers as they came out",
            ["model"],
        )
        self._latency = HistogramTally(
            "delen_latency_seconds", "From a request's arrival to its answer", _SECONDS
        )
        self._queue = HistogramTally(
            "delen_queue_seconds", "From a request's arrival to its first segment", _SECONDS
        )
        self._segments = CounterTally(
            "delen_segment_seconds", "Time spent in segments", ["model", "segment"]
        )
        self._batches = HistogramTally(
            "delen_batch_size", "Jobs that ran a segment together", (1, 2, 4, 8, 16, 32, 64)
        )
        self._tallies = (
            self._answers,
            self._kept,
            self._missed,
            *self._over.values(),
            self._planned_accuracy,
            self._expected_accuracy,
            self._latency,
            self._queue,
            self._segments,
            self._batches,
        )
        for tally in self._tallies:
            self._registry.register(tally)
        self._errors = Counter(
            "delen_errors", "Requests refused or failed", ["code"], registry=self._registry
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
        self._noted.append((result, time.monotonic()))

    @property
    def statistics(self) -> ModelStatistics:
        """What was counted of each model up to now."""
        with self._counting:
            self._count_noted()
        return self._statistics

    def recent(self, model: str, exits: int) -> RecentAnswers:
        """The answers of ``model``, which has so many ``exits``, in the last minute."""
        with self._counting:
            self._count_noted()
            return self._recent.of(model, exits, time.monotonic())

    def outcomes(self, model: str) -> dict[str, Outcomes]:
        """How often bounds on ``model`` were kept and missed, by what they bound."""
        with self._counting:
            self._count_noted()
            kept, missed = (
                [tally.sum({0: model, 2: name}) for name in _BOUNDS]
                for tally in (self._kept, self._missed)
            )
        return {
            name: Outcomes(*counts) for name, *counts in zip(_BOUNDS, kept, missed, strict=True)
        }

    def ran(self, work: Work) -> None:
        self._noted.append(work)
        if len(self._noted) < _COUNTED_AT_ONCE or not self._counting.acquire(blocking=False):
            return  # a scrape may be counting; no request waits for it
        try:
            self._count_noted()
        finally:
            self._counting.release()

    def _count_noted(self) -> None:
        """With the lock held."""
        ran: defaultdict[tuple[str, int, int], list[float]] = defaultdict(list)
        wall = time.time() - time.monotonic()
        while self._noted:
            noted = self._noted.popleft()
            if isinstance(noted, Work):
                variant, segment, batch, began, ended, *_ = noted
                ran[variant, segment, batch].append(ended - began)
            else:
                result, at = noted
                self._statistics.answered(result, wall + at)
                self._recent.add(result, at)
                self._count_answer(result)
        for (variant, segment, batch), seconds in ran.items():
            model, times, total = model_of(variant), len(seconds), sum(seconds)
            self._statistics.ran(model, segment, batch, times, total)
            self._segments.add((model, str(segment)), total)
            self._batches.observe(model, batch, times)

    def _count_answer(self, result: Result) -> None:
        receipt, model = result.receipt, result.model
        tenant = self._tenant_label(result.tenant)
        self._answers.add((model, tenant, str(result.exit), result.reason))
        self._latency.observe(model, receipt.latency.value)
        self._queue.observe(model, receipt.latency.queue)
        latency, accuracy, energy = receipt.latency, receipt.accuracy, receipt.energy
        if accuracy.overall is not None and accuracy.expected is not None:
            self._planned_accuracy.add((model,), accuracy.overall)
            self._expected_accuracy.add((model,), accuracy.expected)
        if latency.bound is not None:
            self._count_bound(model, tenant, "latency", latency, latency.value)
        if accuracy.bound is not None:
            self._count_bound(model, tenant, "accuracy", accuracy, accuracy.overall)
        if energy.bound is not None:
            self._count_bound(model, tenant, "energy", energy, energy.value)

    def _count_bound(
        self, model: str, tenant: str, name: str, outcome: Outcome, value: float | None
    ) -> None:
        if outcome.met is not None:  # both series begin at once: a quotient needs both
            self._kept.add((model, tenant, name), outcome.met)
            self._missed.add((model, tenant, name), not outcome.met)
        if value is not None and outcome.bound is not None:
            self._over[name].observe(model, value - outcome.bound)

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
        counts of a model that comes back go on."""
        with self._counting:
            self._count_noted()
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
    """The metrics of ``registry`` without the series of other models than ``models``, and without
    the times at which series began."""

    def __init__(self, registry: CollectorRegistry, models: Collection[str]) -> None:
        self._registry = registry
        self._models = models

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [
                sample
                for sample in metric.samples
                if ("model" not in sample.labels or sample.labels["model"] in self._models)
                and not sample.name.endswith("_created")
            ]
            yield metric
