"""The OpenAPI description of power, tenants and settled requests."""

from __future__ import annotations

from typing import Any, get_args

from api.openapi.schemas import (
    INTEGER,
    NUMBER,
    NUMBER_OR_NULL,
    TEXT,
    TEXT_OR_NULL,
    TRUTH,
    make_object,
    operation,
    or_null,
    reference,
    whole_object,
)
from delen.core.bounds import HIGHEST_PRIORITY, LOWEST_PRIORITY
from delen.core.energy_status import LONGEST_HISTORY, SHORTEST_HISTORY, SourceHealth
from delen.core.result import EnergyKind, Reason
from delen.core.tenant import LEAST_WEIGHT, MOST_WEIGHT

_POSITIVE = {"type": "number", "exclusiveMinimum": 0}
_RAILS = {"type": "object", "additionalProperties": NUMBER_OR_NULL}
_HEALTH = {"enum": list(get_args(SourceHealth))}
PRICE = {
    "type": ["number", "null"],
    "description": "accuracy per joule; null for one without limit, which buys the least energy",
}
REASON = {"enum": list(get_args(Reason))}


def _outcome(**extra: Any) -> dict[str, Any]:
    return make_object({"bound": NUMBER_OR_NULL, "met": {"type": ["boolean", "null"]}, **extra})


RECEIPT = make_object(
    {
        "met": TRUTH,
        "latency_ms": _outcome(value=NUMBER, queue=NUMBER, predicted=NUMBER),
        "accuracy": _outcome(
            expected=NUMBER_OR_NULL, overall=NUMBER_OR_NULL, guarantee=NUMBER_OR_NULL
        ),
        "energy_mj": _outcome(
            value=NUMBER_OR_NULL,
            predicted=NUMBER_OR_NULL,
            kind={"enum": list(get_args(EnergyKind))},
            source=TEXT_OR_NULL,
            scope=TEXT_OR_NULL,
        ),
    }
)

_WINDOW = whole_object(
    {
        "time": {"type": "number", "description": "its end, in seconds since 1970"},
        "seconds": NUMBER,
        "watts": NUMBER_OR_NULL,
        "rails": _RAILS,
        "attributed_j": NUMBER,
        "idle_j": NUMBER_OR_NULL,
        "other_j": NUMBER_OR_NULL,
        "kind": {"enum": ["attributed", "estimated"]},
        "price_per_j": PRICE,
        "state": _HEALTH,
    }
)
_CONSTRAINT = whole_object(
    {
        "name": TEXT,
        "unit": TEXT,
        "limit": NUMBER_OR_NULL,
        "value": NUMBER_OR_NULL,
        "headroom": NUMBER_OR_NULL,
        "price_per_j": PRICE,
        "binding": TRUTH,
        "explanation": TEXT,
    }
)
_POWER = whole_object(
    {
        "source": TEXT_OR_NULL,
        "scope": TEXT_OR_NULL,
        "kind": {"enum": ["measured", "estimated", "unknown"]},
        "watts": NUMBER_OR_NULL,
        "rails": _RAILS,
        "state": _HEALTH,
        "since_s": NUMBER,
        "problem": TEXT_OR_NULL,
        "age_ms": NUMBER_OR_NULL,
        "board": TEXT_OR_NULL,
        "mode": whole_object(
            {
                "id": {"type": ["integer", "null"]},
                "name": TEXT,
                "clocks": TEXT,
                "jetson_clocks": {"type": ["boolean", "null"]},
                "throttling": {"type": "array", "items": TEXT},
            }
        ),
        "static_w": NUMBER_OR_NULL,
        "dynamic_w": NUMBER_OR_NULL,
        "other_w": NUMBER_OR_NULL,
        "time_constant_ms": NUMBER_OR_NULL,
        "price_per_j": PRICE,
        "controller": TEXT,
        "constraints": {"type": "array", "items": _CONSTRAINT},
        "battery": or_null(
            whole_object(
                {
                    "left_wh": NUMBER,
                    "reserve_wh": NUMBER,
                    "last_s": NUMBER,
                    "allowed_w": NUMBER_OR_NULL,
                    "lasts_s": NUMBER_OR_NULL,
                }
            )
        ),
        "window": or_null(_WINDOW),
        "errors": INTEGER,
        "windows": INTEGER,
        "board_energy_j": whole_object({"attributed": NUMBER, "idle": NUMBER, "other": NUMBER}),
    }
)
_CHANGES = make_object(
    {
        "watt_cap_w": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "battery": or_null(
            make_object(
                {
                    "energy_wh": _POSITIVE,
                    "reserve_wh": {"type": "number", "minimum": 0},
                    "last_s": _POSITIVE,
                },
                "energy_wh",
                "last_s",
                closed=True,
            )
        ),
        "mode": {"type": "string", "description": "name or number of a power mode"},
    },
    closed=True,
)
_SETTLED = whole_object(
    {
        "request_id": TEXT,
        "model": TEXT,
        "tenant": TEXT,
        "exit": INTEGER,
        "reason": REASON,
        "settled": {"type": "boolean", "description": "whether the energy is final"},
        "receipt": RECEIPT,
    }
)
_TENANT = whole_object(
    {
        "budget": or_null(
            whole_object({"energy_j": NUMBER, "period_s": NUMBER, "balance_j": NUMBER_OR_NULL})
        ),
        "energy_j": whole_object({"attributed": NUMBER, "estimated": NUMBER}),
        "weight": {
            "type": ["number", "null"],
            "description": "its part of the device against others'; null counts 1",
        },
        "priority": {
            "type": ["integer", "null"],
            "description": "of its requests that name none, and the most urgent they may have",
        },
        "requests": INTEGER,
        "answers": INTEGER,
        "refused": INTEGER,
        "refused_why": {
            "type": "object",
            "description": "by the error's code",
            "additionalProperties": INTEGER,
        },
        "missed": whole_object({"latency": INTEGER, "accuracy": INTEGER, "energy": INTEGER}),
        "price_per_j": PRICE,
        "device": whole_object(
            {
                "seconds": NUMBER,
                "share": {
                    "type": ["number", "null"],
                    "description": "its part of what all used in the last minute",
                },
                "behind": {"type": "boolean", "description": "it has used more than its share"},
            }
        ),
    }
)
_TENANTS = whole_object(
    {
        "tenants": {"type": "object", "additionalProperties": reference("Tenant")},
        "fairness": whole_object({"time": NUMBER_OR_NULL, "energy": NUMBER_OR_NULL}),
    }
)
_HISTORY = whole_object({"windows": {"type": "array", "items": _WINDOW}})
_TENANT_CHANGES = make_object(
    {
        "energy_budget": or_null(
            make_object(
                {"energy_j": _POSITIVE, "period_s": _POSITIVE}, "energy_j", "period_s", closed=True
            )
        ),
        "weight": {"type": ["number", "null"], "minimum": LEAST_WEIGHT, "maximum": MOST_WEIGHT},
        "priority": {
            "type": ["integer", "null"],
            "minimum": HIGHEST_PRIORITY,
            "maximum": LOWEST_PRIORITY,
        },
    },
    closed=True,
)

POWER_SCHEMAS = {
    "Power": _POWER,
    "PowerHistory": _HISTORY,
    "SettledRequest": _SETTLED,
    "Tenant": _TENANT,
    "Tenants": _TENANTS,
}


def power_paths() -> dict[str, Any]:
    """The paths that are about energy."""
    seconds = {
        "name": "seconds",
        "in": "query",
        "schema": {"type": "number", "minimum": SHORTEST_HISTORY, "maximum": LONGEST_HISTORY},
    }
    changes = {"application/json": {"schema": _CHANGES}}
    tenant = {"application/json": {"schema": _TENANT_CHANGES}}
    power = reference("Power")
    return {
        "/v1/power": {
            "get": operation("Power now, its source, and what limits it", power),
            "put": operation("Change limits or the power mode", power, body=changes),
        },
        "/v1/power/history": {
            "get": operation(
                "The last accounting windows", reference("PowerHistory"), query=[seconds]
            )
        },
        "/v1/requests/{request_id}": {
            "get": operation("A past request, its energy settled", reference("SettledRequest"))
        },
        "/v1/tenants": {"get": operation("Tenants and what they got", reference("Tenants"))},
        "/v1/tenants/{tenant}": {
            "put": operation("Change a tenant", reference("Tenant"), body=tenant)
        },
    }
