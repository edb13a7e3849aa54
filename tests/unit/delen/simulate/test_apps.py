from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from delen.core.bounds import Bounds
from delen.core.plan import OperatingPoint
from delen.profile.cost_model import CostModel
from delen.simulate.apps import (
    KINDS,
    App,
    Kind,
    Mixed,
    accuracy_floor,
    draw,
    energy_cap,
    latency_cap,
    make_trace,
    standard_apps,
    standard_mixes,
)
from delen.simulate.arrivals import Camera, Poisson, Window
from delen.simulate.population import synthetic
from policies.plan.planner import Planner, PlannerSettings

FAST, FLOOR = Bounds(max_latency=0.02), Bounds(min_accuracy=0.8)


@pytest.fixture(scope="module")
def planner() -> Planner:
    table = synthetic((0.6, 0.75, 0.85), 5000, seed=0).calibration()
    return Planner(table, PlannerSettings())


@pytest.fixture(scope="module")
def costs(make_costs: Callable[..., CostModel]) -> CostModel:
    return make_costs(0.01, 0.02, 0.03, energy=(0.04, 0.08, 0.12))


@pytest.fixture(scope="module")
def points(planner: Planner, costs: CostModel) -> tuple[OperatingPoint, ...]:
    return planner.points(costs)


def test_bounds_are_mixed_by_their_shares() -> None:
    trace = make_trace([App("a", Poisson(500.0), (Mixed(3, FAST), Mixed(1, FLOOR)))], 20.0, 0)
    counts = Counter(arrival.bounds for arrival in trace)
    assert set(counts) == {FAST, FLOOR}
    assert counts[FAST] / len(trace) == pytest.approx(0.75, abs=0.02)


def test_what_an_app_says_of_itself_is_on_its_requests() -> None:
    app = App("cam", Camera(10.0), model="resnet", priority=2, streams=3)
    trace = make_trace([app], 10.0, 0)
    assert {(a.tenant, a.model, a.priority) for a in trace} == {("cam", "resnet", 2)}
    assert Counter(a.stream for a in trace) == {"cam-0": 100, "cam-1": 100, "cam-2": 100}
    assert len({a.time for a in trace}) == 300
    assert app.rate == 30.0


def test_an_app_keeps_its_requests_when_another_joins() -> None:
    one, two = App("one", Poisson(20.0)), App("two", Poisson(30.0), (Mixed(1, FAST),))
    alone, both = make_trace([one], 10.0, 5), make_trace([one, two], 10.0, 5)
    assert [a for a in both if a.tenant == "one"] == list(alone)
    assert make_trace([one, two], 10.0, 5) == both != make_trace([one, two], 10.0, 6)


def test_streams_of_one_tenants_apps_are_numbered_on() -> None:
    apps = [
        App("cam", Camera(2.0), streams=2),
        App("cam", Poisson(9.0)),
        App("cam", Camera(5.0), streams=1),
    ]
    counts = Counter(arrival.stream for arrival in make_trace(apps, 10.0, 0))
    assert (counts["cam-0"], counts["cam-1"], counts["cam-2"]) == (20, 20, 50)
    assert set(counts) == {"cam-0", "cam-1", "cam-2", None}


def test_tenants_are_counted_those_without_requests_too() -> None:
    window = Window(Poisson(5.0), 100.0, 200.0)
    requests = draw([App("a", Camera(5.0)), App("b", window), App("a", Camera(1.0))], 10.0, 0)
    assert requests.by_tenant() == {"a": 60, "b": 0}


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


def test_what_makes_no_sense_is_refused(points: tuple[OperatingPoint, ...]) -> None:
    with pytest.raises(ValueError, match="a: shares"):
        App("a", Poisson(1.0), ())
    with pytest.raises(ValueError, match="a: shares"):
        App("a", Poisson(1.0), (Mixed(2, FAST), Mixed(-1, FLOOR)))
    with pytest.raises(ValueError, match="streams is 0"):
        App("a", Poisson(1.0), streams=0)
    for count in (0, 11):
        with pytest.raises(ValueError, match="from 1 to 10"):
            standard_apps(count, 1.0, "poisson", points)
