from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.standard_apps import (
    KINDS,
    Kind,
    accuracy_floor,
    energy_cap,
    latency_cap,
    make_trace,
    standard_apps,
    standard_mixes,
)
from delen.core.plan import OperatingPoint
from delen.profile.cost_model import CostModel
from delen.simulate.synthetic import synthetic
from policies.plan.planner import Planner, PlannerSettings


@pytest.fixture(scope="module")
def planner() -> Planner:
    table = synthetic((0.6, 0.75, 0.85), 5000, seed=0)
    return Planner(table, PlannerSettings())


@pytest.fixture(scope="module")
def costs(make_costs: Callable[..., CostModel]) -> CostModel:
    return make_costs(0.01, 0.02, 0.03, energy=(0.04, 0.08, 0.12))


@pytest.fixture(scope="module")
def points(planner: Planner, costs: CostModel) -> tuple[OperatingPoint, ...]:
    return planner.points(costs)


def test_bounds_are_set_from_exits(points: tuple[OperatingPoint, ...]) -> None:
    assert latency_cap(points[1], 2.0).max_latency == pytest.approx(0.06)
    assert energy_cap(points[2], 1.5).max_energy == pytest.approx(0.36)
    assert accuracy_floor(points[2], 0.05).min_accuracy == pytest.approx(0.8)
    with pytest.raises(ValueError, match="exit 1 is unknown"):
        energy_cap(replace(points[1], energy=None))


def test_the_standard_mixes_can_be_kept(
    planner: Planner, costs: CostModel, points: tuple[OperatingPoint, ...]
) -> None:
    """By the planner of the daemon, on an idle device; and they name every kind of bound."""
    mixes = standard_mixes(points)
    asked = {mixed.bounds for mix in mixes for mixed in mix}
    assert len(mixes) == 10
    assert all(planner.plan(bounds, costs).infeasible is None for bounds in asked)
    for name in ("max_latency", "min_accuracy", "max_energy"):
        assert any(getattr(mixed.bounds, name) is not None for mixed in mixes[0])


def test_without_energies_no_cap_on_them_is_asked(points: tuple[OperatingPoint, ...]) -> None:
    unknown = [replace(point, energy=None) for point in points]
    mixes = standard_mixes(unknown)
    assert all(mixed.bounds.max_energy is None for mix in mixes for mixed in mix)


@pytest.mark.parametrize("count", [1, 3, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_the_standard_apps_share_the_rate(
    count: int, kind: Kind, points: tuple[OperatingPoint, ...]
) -> None:
    apps = standard_apps(count, 60.0, kind, points)
    trace = make_trace(apps, 200.0, 0)
    assert sum(app.rate for app in apps) == pytest.approx(60.0)
    assert len(trace) == pytest.approx(12_000, rel=0.2 if kind == "bursts" else 0.05)
    assert len(trace.tenants) == len({app.name for app in apps}) == count
    bounds = [arrival.bounds for arrival in trace]
    assert any(b.max_latency for b in bounds) and any(b.min_accuracy for b in bounds)
    assert any(b.max_energy for b in bounds)


@pytest.mark.parametrize("count", [0, 11])
def test_a_wrong_count_is_refused(count: int, points: tuple[OperatingPoint, ...]) -> None:
    with pytest.raises(ValueError, match="from 1 to 10"):
        standard_apps(count, 1.0, "poisson", points)
