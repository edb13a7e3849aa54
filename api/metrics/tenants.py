"""Prometheus metrics of tenants, read from the accounting at each scrape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from delen.core.energy_status import EnergyService, TenantStatus

MAX_TENANTS = 100
"""Anyone can invent names, but labels must stay bounded."""

OTHERS = "_other"


def tenant_labels(tenants: Mapping[str, TenantStatus]) -> Callable[[str], str]:
    """The label of each of ``tenants``, which are in the order in which they came: its name for
    the first ones and for those with settings, which the operator bounds, else ``_other``."""
    own = {*islice(tenants, MAX_TENANTS)}
    own |= {name for name, tenant in tenants.items() if tenant.is_set}
    return lambda name: name if name in own else OTHERS


class TenantCollector(Collector):
    """Metrics of the tenants of ``service``."""

    def __init__(self, service: EnergyService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        tenants = self._service.tenants()
        for name, text, label, count in (
            ("answers", "Requests answered", "", lambda each: {"": each.answers}),
            ("refused", "Requests refused or failed", "code", lambda each: each.refused),
            ("bounds_missed", "Bounds broken by answers", "bound", lambda each: each.missed),
            ("device_seconds", "Time on the device", "", lambda each: {"": each.seconds}),
            (
                "joules",
                "Dynamic energy of answers once it is final, by how it is known",
                "kind",
                lambda each: {"attributed": each.attributed, "estimated": each.estimated},
            ),
        ):
            yield _counter(f"delen_tenant_{name}", text, label, count, tenants)
        yield from _settings(tenants)
        fairness = self._service.fairness()
        family = GaugeMetricFamily(
            "delen_fairness_jain",
            "Jain's index over what tenants got of their fair parts in the last minute",
            labels=["by"],
        )
        for by, index in (("time", fairness.time), ("energy", fairness.energy)):
            if index is not None:
                family.add_metric([by], index)
        yield family


def _counter(
    name: str,
    text: str,
    label: str,
    count: Callable[[TenantStatus], Mapping[str, float]],
    tenants: Mapping[str, TenantStatus],
) -> Metric:
    sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
    label_of = tenant_labels(tenants)
    for tenant, status in tenants.items():
        own = label_of(tenant)
        for value, number in count(status).items():
            sums[(own, value) if label else (own,)] += number
    family = CounterMetricFamily(name, text, labels=["tenant", label] if label else ["tenant"])
    for labels, number in sums.items():
        family.add_metric(labels, number)
    return family


def _settings(tenants: Mapping[str, TenantStatus]) -> Iterator[Metric]:
    """Of tenants with settings."""
    weight = GaugeMetricFamily("delen_tenant_weight", "Against others'", labels=["tenant"])
    behind = GaugeMetricFamily(
        "delen_tenant_behind", "1 while it has used more than its share", labels=["tenant"]
    )
    for name, tenant in tenants.items():
        if tenant.is_set:
            weight.add_metric([name], 1.0 if tenant.weight is None else tenant.weight)
            behind.add_metric([name], float(tenant.is_behind))
    yield weight
    yield behind
