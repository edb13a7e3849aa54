"""Prometheus metrics of tenants, read from the accounting when they are asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from delen.core.energy_status import EnergyService, TenantStatus


class TenantCollector(Collector):
    """Metrics of the tenants of ``service``.

    ``tenant_label`` bounds those that are told apart, for anyone can invent names; tenants of which
    something is set, which the operator bounds, all are.
    """

    def __init__(self, service: EnergyService, tenant_label: Callable[[str], str]) -> None:
        self._service = service
        self._tenant_label = tenant_label

    def describe(self) -> list[Metric]:
        """Nothing: what there is to tell is found out at each collection."""
        return []

    def collect(self) -> Iterator[Metric]:
        tenants = self._service.tenants()
        for name, told, label, count in (
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
            yield self._counter(f"delen_tenant_{name}", told, label, count, tenants)
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
        self,
        name: str,
        told: str,
        label: str,
        count: Callable[[TenantStatus], Mapping[str, float]],
        tenants: Mapping[str, TenantStatus],
    ) -> Metric:
        sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for tenant, status in tenants.items():
            own = tenant if status.is_set else self._tenant_label(tenant)
            for value, number in count(status).items():
                sums[(own, value) if label else (own,)] += number
        family = CounterMetricFamily(name, told, labels=["tenant", label] if label else ["tenant"])
        for labels, number in sums.items():
            family.add_metric(labels, number)
        return family


def _settings(tenants: Mapping[str, TenantStatus]) -> Iterator[Metric]:
    """Of tenants of which something is set."""
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
