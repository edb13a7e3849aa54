"""Prometheus metrics of power, read from the energy accounting at each scrape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.metrics.tenants import tenant_labels
from delen.core.energy_status import (
    EnergyService,
    EnergyTotal,
    PowerStatus,
    SourceHealth,
    TenantStatus,
)


class EnergyCollector(Collector):
    """Metrics of ``service``."""

    def __init__(self, service: EnergyService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        status, totals = self._service.describe(), self._service.totals()
        tenants = self._service.tenants()  # after the totals, whose tenants it then has
        yield from _power(status)
        yield from _accounting(status)
        yield from _control(status)
        yield _requests(totals, tenants)
        yield from _budgets(tenants)


def _requests(totals: Iterable[EnergyTotal], tenants: Mapping[str, TenantStatus]) -> Metric:
    joules: defaultdict[tuple[str, ...], float] = defaultdict(float)
    label = tenant_labels(tenants)
    for total in totals:
        tenant = label(total.tenant)
        joules[total.model, tenant, str(total.exit), total.kind] += total.joules
    family = CounterMetricFamily(
        "delen_energy_joules",
        "Dynamic energy of answered requests once it is final, by how it is known",
        labels=["model", "tenant", "exit", "kind"],
    )
    for labels, value in joules.items():
        family.add_metric(labels, value)
    return family


def _power(status: PowerStatus) -> Iterator[Metric]:
    watts = GaugeMetricFamily(
        "delen_power_watts", "Latest reading in total", labels=["source", "scope"]
    )
    if status.state == "ok" and status.watts is not None:
        watts.add_metric([status.source or "", status.scope or ""], status.watts)
    yield watts
    rails = GaugeMetricFamily("delen_power_rail_watts", "Latest reading of a rail", labels=["rail"])
    for rail, value in status.rails.items() if status.state == "ok" else ():
        rails.add_metric([rail], value)
    yield rails
    parts = GaugeMetricFamily(
        "delen_power_part_watts", "What the total is made of, as accounted", labels=["part"]
    )
    for part in ("static", "dynamic", "other"):
        if (value := getattr(status, part)) is not None:
            parts.add_metric([part], value)
    yield parts
    state = GaugeMetricFamily(
        "delen_power_source_state", "1 for the state that the source is in", labels=["state"]
    )
    for name in get_args(SourceHealth):
        state.add_metric([name], float(name == status.state))
    yield state


def _accounting(status: PowerStatus) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "delen_power_reading_errors", "Readings that failed", value=status.errors
    )
    yield CounterMetricFamily(
        "delen_power_windows", "Accounting windows closed", value=status.windows
    )
    if status.kind == "measured" and status.windows:
        parts = status.board_energy
        yield CounterMetricFamily(
            "delen_board_joules",
            "Measured energy since the start, wherever it went",
            value=parts.attributed + parts.idle + parts.other,
        )
    energy = GaugeMetricFamily(
        "delen_board_energy_joules",
        "Measured energy since the start by where it went; noise makes other shrink at times",
        labels=["part"],
    )
    for part in ("attributed", "idle", "other"):
        energy.add_metric([part], getattr(status.board_energy, part))
    yield energy


def _control(status: PowerStatus) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "delen_energy_price", "Accuracy per joule; +Inf for the least energy", value=status.price
    )
    price = GaugeMetricFamily(
        "delen_constraint_price", "Accuracy per joule that it demands", labels=["constraint"]
    )
    headroom = GaugeMetricFamily(
        "delen_constraint_headroom", "What is left of its limit", labels=["constraint", "unit"]
    )
    for constraint in status.constraints:
        price.add_metric([constraint.name], constraint.price)
        if constraint.headroom is not None:
            headroom.add_metric([constraint.name, constraint.unit], constraint.headroom)
    yield price
    yield headroom


def _budgets(tenants: Mapping[str, TenantStatus]) -> Iterator[Metric]:
    balance = GaugeMetricFamily(
        "delen_budget_balance_joules", "Joules a tenant may spend now", labels=["tenant"]
    )
    price = GaugeMetricFamily(
        "delen_budget_price",
        "Accuracy per joule for a tenant with a budget",
        labels=["tenant"],
    )
    for name, tenant in tenants.items():
        if tenant.budget is not None and tenant.balance is not None:
            balance.add_metric([name], tenant.balance)
            price.add_metric([name], tenant.price)
    yield balance
    yield price
