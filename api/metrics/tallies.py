"""Counts of what every request changes, as plain numbers, which Prometheus's own do not keep up
with: they lock and check each time."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class CounterTally(Collector):
    """A counter. Whoever adds to it and whoever collects it hold a lock of theirs."""

    def __init__(self, name: str, about: str, labels: Sequence[str]) -> None:
        self._what = name, about, labels
        self._counts: dict[tuple[str, ...], float] = defaultdict(float)

    def add(self, labels: tuple[str, ...], amount: float = 1.0) -> None:
        self._counts[labels] += amount

    def sum(self, wanted: Mapping[int, str]) -> int:
        """What was counted under labels that have these values at these places."""
        return round(
            sum(
                count
                for labels, count in self._counts.items()
                if all(labels[place] == value for place, value in wanted.items())
            )
        )

    def collect(self) -> Iterator[Metric]:
        name, about, labels = self._what
        family = CounterMetricFamily(name, about, labels=labels)
        for values, count in self._counts.items():
            family.add_metric(values, count)
        yield family


class HistogramTally(Collector):
    """A histogram by model, with a last bucket for all that is above ``bounds``."""

    def __init__(self, name: str, about: str, bounds: Sequence[float]) -> None:
        self._what = name, about
        self._bounds = bounds
        self._edges = [*map(floatToGoString, bounds), "+Inf"]
        self._buckets: dict[str, list[int]] = {}
        self._sums: dict[str, float] = defaultdict(float)

    def observe(self, model: str, value: float, times: int = 1) -> None:
        buckets = self._buckets.get(model)
        if buckets is None:
            buckets = self._buckets[model] = [0] * len(self._edges)
        buckets[bisect_left(self._bounds, value)] += times
        self._sums[model] += times * value

    def collect(self) -> Iterator[Metric]:
        name, about = self._what
        family = HistogramMetricFamily(name, about, labels=["model"])
        for model, buckets in self._buckets.items():
            counts = [*zip(self._edges, accumulate(buckets), strict=True)]
            family.add_metric([model], counts, self._sums[model])
        yield family
