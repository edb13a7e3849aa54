"""The figures of one moment, read from what the daemon counts anyway."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from api.dashboard.findings import find_problems
from api.metrics.residency import resident_bytes
from api.metrics.tenants import MAX_TENANTS
from delen.core.energy_status import PowerStatus, TenantStatus
from delen.engine.model import Model
from delen.residency.registry import Entry
from delen.residency.sizes import segment_sizes
from delen.wire.figures import (
    AppFigures,
    Figures,
    MemoryFigures,
    ModelFigures,
    QueueFigures,
)
from delen.wire.message import Megabytes, Milli, Price, WattHours
from delen.wire.power import Power
from delen.wire.tenants import Missed

if TYPE_CHECKING:
    from api.views import Service


def make_figures(service: Service) -> Figures:
    """What ``service`` is doing now. It takes the locks of the engine and of the accounting."""
    runtime, power = service.runtime, service.energy.describe()
    entries, tenants = runtime.store.entries(), service.energy.tenants()
    health, memory, (lanes, busy) = service.health(), runtime.memory(), runtime.lanes()
    needed = "" if runtime.store.is_capped else service.default_model
    models = tuple(_of_model(service, name, entry, lanes) for name, entry in entries)
    return Figures(
        time=time.time(),
        node=runtime.node,
        version=service.version,
        status=health.status,
        findings=find_problems(health, [entry for _, entry in entries], power, tenants, needed),
        power=Power.of(power),
        queue=QueueFigures(
            sum(model.jobs for model in models), Milli(runtime.backlog_seconds()), lanes, busy
        ),
        memory=None
        if memory is None
        else MemoryFigures(Megabytes(memory.taken), Megabytes(memory.cap)),
        models=models,
        apps=_apps(power, tenants),
    )


def _of_model(service: Service, name: str, entry: Entry[Model], lanes: int) -> ModelFigures:
    model, metrics = entry.model, service.metrics
    return ModelFigures(
        name=name,
        default=name == service.default_model,
        state=entry.state,
        problem=entry.problem or service.runtime.health.problem_of(name),
        jobs=service.runtime.jobs(name),
        slowdown=None if model is None else model.costs.slowdown.mean,
        memory=_memory(service, name, entry, lanes),
        bounds=metrics.outcomes(name),
        recent=metrics.recent(name, len(entry.manifest.exits)),
    )


def _memory(service: Service, name: str, entry: Entry[Model], lanes: int) -> Megabytes | None:
    if (segments := service.runtime.segments(name)) is not None:
        return Megabytes(resident_bytes(segments))
    if entry.state != "ready":
        return None
    return Megabytes(sum(segment_sizes(entry.manifest, lanes)))


def _apps(power: PowerStatus, tenants: Mapping[str, TenantStatus]) -> dict[str, AppFigures]:
    today, has_energy = time.strftime("%Y-%m-%d"), power.source is not None
    return {
        name: AppFigures(
            answers=tenant.answers,
            refused=sum(tenant.refused.values()),
            missed=Missed(**tenant.missed),
            today=_joules(tenant, today) if has_energy else None,
            total=WattHours(tenant.attributed + tenant.estimated) if has_energy else None,
            price=Price(tenant.price),
            balance=tenant.balance,
        )
        for name, tenant in sorted(islice(tenants.items(), MAX_TENANTS))
    }


def _joules(tenant: TenantStatus, date: str) -> WattHours:
    return WattHours(sum(day.attributed + day.estimated for day in tenant.days if day.date == date))
