"""The figures of ``delen simulate`` and ``delen bench`` from the outcomes of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.core.fairness import Use, fairness
from delen.simulate.outcome import Fate, Outcomes


def summarise(
    outcomes: Outcomes,
    upper_bound: float | None,
    weights: Mapping[str, float] | None = None,
    label_blind_bound: float | None = None,
) -> dict[str, Any]:
    """The JSON object of one policy; a bound is None if it is unknown.

    Fairness (``delen.core.fairness``) is judged by the tenants' ``weights`` (1 if not named).
    """
    tenants, time, energy = {}, [], []
    for index, name in enumerate(outcomes.tenants):
        part = outcomes[outcomes.tenant == index]
        weight = (weights or {}).get(name, 1.0)
        tenants[name] = _figures(part)
        time.append(_use(part, weight, part.seconds))
        energy.append(_use(part, weight, part.energy))
    decisions = 1e6 * outcomes.decision_seconds
    return {
        "policy": outcomes.policy,
        **_figures(outcomes),
        "upper_bound": upper_bound,
        "label_blind_bound": label_blind_bound,
        "tenants": tenants,
        "fairness": {"time": fairness(time), "energy": fairness(energy)},
        "decision_us": {"p50": quantile(decisions, 0.5), "p99": quantile(decisions, 0.99)},
        "slowdown": outcomes.slowdown,
        "policy_failures": outcomes.policy_failures,
    }


def _use(part: Outcomes, weight: float, used: NDArray[np.float64]) -> Use:
    turned_away = np.isin(part.fate, (Fate.OVERLOADED, Fate.GIVEN_UP))
    return Use(weight, float(used.sum()), int(part.answered.sum()), int(turned_away.sum()))


def _figures(part: Outcomes) -> dict[str, Any]:
    answered = part.answered
    count, size = int(answered.sum()), len(part)
    latencies = 1e3 * part.latency[answered]
    energy = float(part.energy.sum())
    shares = np.bincount(part.exit[answered], minlength=part.exits) / max(1, count)
    return {
        "requests": size,
        "answered": count,
        "refused": size - count,
        "refused_why": {
            "bounds": int((part.fate == Fate.INFEASIBLE).sum()),
            "load": int((part.fate == Fate.OVERLOADED).sum()),
            "given_up": int((part.fate == Fate.GIVEN_UP).sum()),
        },
        "missed": {
            "latency": int(part.missed_latency.sum()),
            "accuracy": int(part.missed_accuracy.sum()),
            "energy": int(part.missed_energy.sum()),
        },
        "violations": _violations(part),
        "accuracy": _mean(part.correct[answered]),
        "effective_accuracy": _mean(part.effective) if size else 0.0,
        "latency_ms": {f"p{100 * q:.0f}": quantile(latencies, q) for q in (0.5, 0.95, 0.99)},
        "energy_j": None if np.isnan(energy) else energy,
        "exits": shares.tolist(),
    }


def _violations(part: Outcomes) -> float:
    """The share of requests refused, or answered outside their bounds, among those whose bounds can
    be kept."""
    feasible = part.fate != Fate.INFEASIBLE
    broken = part.missed | (feasible & ~part.answered)
    return float(broken.sum() / max(1, feasible.sum()))


def _mean(values: NDArray[np.float64]) -> float | None:
    """The mean of the values that are known; None if none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def quantile(values: NDArray[np.float64], level: float) -> float | None:
    """The quantile of ``values``; None if there are none."""
    return float(np.quantile(values, level)) if len(values) else None
