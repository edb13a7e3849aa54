"""Tenants on the wire: joules, seconds, weights and priorities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from delen.core.bounds import HIGHEST_PRIORITY, LOWEST_PRIORITY, check_cap, check_integer
from delen.core.energy_status import UNCHANGED, Budget, TenantChanges, TenantStatus, check_period
from delen.core.fairness import Fairness
from delen.core.tenant import check_weight
from delen.errors import InvalidInput
from delen.wire.answers import price_to_json
from delen.wire.power import finite, read_object, require
from delen.wire.requests import check_known

CHANGES = ("energy_budget", "weight", "priority")
"""What ``PUT /v1/tenants/{tenant}`` may name."""


def tenant_to_json(tenant: TenantStatus) -> dict[str, Any]:
    """One tenant of ``GET /v1/tenants``. What is not set is null."""
    budget, refused = tenant.budget, sum(tenant.refused.values())
    return {
        "weight": tenant.weight,
        "priority": tenant.priority,
        "budget": None
        if budget is None
        else {
            "energy_j": budget.joules,
            "period_s": budget.period,
            "balance_j": finite(tenant.balance),
        },
        "requests": tenant.answers + refused,
        "answers": tenant.answers,
        "refused": refused,
        "refused_why": dict(tenant.refused),
        "missed": {
            bound: tenant.missed.get(bound, 0) for bound in ("latency", "accuracy", "energy")
        },
        "energy_j": {"attributed": tenant.attributed, "estimated": tenant.estimated},
        "price_per_j": price_to_json(tenant.price),
        "device": {
            "seconds": tenant.seconds,
            "share": finite(tenant.share),
            "behind": tenant.is_behind,
        },
    }


def fairness_to_json(fairness: Fairness) -> dict[str, float | None]:
    return {"time": finite(fairness.time), "energy": finite(fairness.energy)}


def tenant_changes_to_json(changes: TenantChanges) -> dict[str, Any]:
    """The body of ``PUT /v1/tenants/{tenant}``: what is kept is left out."""
    document: dict[str, Any] = {}
    if changes.budget is not UNCHANGED:
        budget = changes.budget
        document["energy_budget"] = budget and {
            "energy_j": budget.joules,
            "period_s": budget.period,
        }
    if changes.weight is not UNCHANGED:
        document["weight"] = changes.weight
    if changes.priority is not UNCHANGED:
        document["priority"] = changes.priority
    return document


def parse_tenant_changes(document: Mapping[str, Any]) -> TenantChanges:
    """What ``PUT /v1/tenants/{tenant}`` asks to change; null takes it away.

    InvalidInput names the field that is wrong, or the first one where none is named.
    """
    check_known(document, *CHANGES)
    if not document:
        raise InvalidInput(f"the body is to name one of {', '.join(CHANGES)}", CHANGES[0])
    budget, weight, priority = (document.get(name, UNCHANGED) for name in CHANGES)
    if budget is not None and budget is not UNCHANGED:
        budget = _parse_budget(budget)
    if weight is not None and weight is not UNCHANGED:
        weight = check_weight(weight, "weight")
    if priority is not None and priority is not UNCHANGED:
        priority = check_integer(priority, "priority", HIGHEST_PRIORITY, LOWEST_PRIORITY)
    return TenantChanges(budget, weight, priority)


def _parse_budget(given: object) -> Budget:
    fields = read_object(given, "energy_budget", "energy_j", "period_s")
    require(fields, "energy_j", "period_s")
    return Budget(
        check_cap(fields["energy_j"], "energy_j", "joules"),
        check_period(fields["period_s"], "period_s"),
    )
