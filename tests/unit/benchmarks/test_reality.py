"""How the benchmark tells the simulator what the real device was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.reality import BURSTS, SCENES, Pair, Results, figures
from benchmarks.reality_sites import as_it_was
from delen.profile.profile import HostCosts, Profile, Quantiles


def test_the_device_is_as_slow_by_and_by_as_it_was_seen(
    make_profile: Callable[..., Profile],
) -> None:
    profile = replace(make_profile(0.01), host=HostCosts(stretch=Quantiles(1.2, 1.2, 1.2, 1.2)))
    become, slow = as_it_was(profile, ((0.5, 1.0), (1.0, 2.0), (1.5, 1.5)), speed=1.5)
    assert [(span.start, span.factor) for span in slow] == [(0.0, 1.0), (0.5, 2.0), (1.0, 1.5)]
    assert slow[-1].end > 1e5
    assert become.as_served().cost(0, 1).latency.p50 == pytest.approx(0.01 * 1.2 * 1.5 / 1.5)


def summary(p95: float, violations: float, exits: list[float]) -> dict:
    return {
        "latency_ms": {"p95": p95},
        "violations": violations,
        "effective_accuracy": 0.9,
        "exits": exits,
    }


def test_claims_are_of_the_distance_between_real_and_simulated() -> None:
    results = Results()
    real, simulated = summary(10, 0.01, [0.5, 0.5]), summary(12, 0.05, [0.4, 0.6])
    for scene in (SCENES[0], BURSTS):
        results.add("over HTTP", scene, Pair(real, simulated, real))
    made = {figure.name: figure for figure in figures(results)}
    p95 = made[f"over HTTP, {SCENES[0]}: p95, off by"]
    assert p95.median == pytest.approx(0.2) and p95.holds is False
    assert made[f"over HTTP, {SCENES[0]}: exits, share elsewhere"].median == pytest.approx(0.1)
    assert made[f"over HTTP, {SCENES[0]}: violations, off by"].holds is False
    assert made[f"over HTTP, {BURSTS}: violations, off by"].holds is True
    assert made[f"over HTTP, {BURSTS}: effective accuracy, off by"].holds is True
