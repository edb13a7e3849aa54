from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from delen.core.bounds import Bounds
from delen.simulate.apps import App, Mixed, draw
from delen.simulate.arrivals import Camera, Poisson, Window
from delen.simulate.trace import Trace

FAST, FLOOR = Bounds(max_latency=0.02), Bounds(min_accuracy=0.8)


def trace_of(apps: Sequence[App], duration: float, seed: int) -> Trace:
    return Trace(tuple(draw(apps, duration, seed)))


def test_bounds_are_mixed_by_their_shares() -> None:
    trace = trace_of([App("a", Poisson(500.0), (Mixed(3, FAST), Mixed(1, FLOOR)))], 20.0, 0)
    counts = Counter(arrival.bounds for arrival in trace)
    assert set(counts) == {FAST, FLOOR}
    assert counts[FAST] / len(trace) == pytest.approx(0.75, abs=0.02)


def test_what_an_app_says_of_itself_is_on_its_requests() -> None:
    app = App("cam", Camera(10.0), model="resnet", priority=2, streams=3)
    trace = trace_of([app], 10.0, 0)
    assert {(a.tenant, a.model, a.priority) for a in trace} == {("cam", "resnet", 2)}
    assert Counter(a.stream for a in trace) == {"cam-0": 100, "cam-1": 100, "cam-2": 100}
    assert len({a.time for a in trace}) == 300
    assert app.rate == 30.0


def test_an_app_keeps_its_requests_when_another_joins() -> None:
    one, two = App("one", Poisson(20.0)), App("two", Poisson(30.0), (Mixed(1, FAST),))
    alone, both = trace_of([one], 10.0, 5), trace_of([one, two], 10.0, 5)
    assert [a for a in both if a.tenant == "one"] == list(alone)
    assert trace_of([one, two], 10.0, 5) == both != trace_of([one, two], 10.0, 6)


def test_streams_of_one_tenants_apps_are_numbered_on() -> None:
    apps = [
        App("cam", Camera(2.0), streams=2),
        App("cam", Poisson(9.0)),
        App("cam", Camera(5.0), streams=1),
    ]
    counts = Counter(arrival.stream for arrival in trace_of(apps, 10.0, 0))
    assert (counts["cam-0"], counts["cam-1"], counts["cam-2"]) == (20, 20, 50)
    assert set(counts) == {"cam-0", "cam-1", "cam-2", None}


def test_tenants_are_counted_those_without_requests_too() -> None:
    window = Window(Poisson(5.0), 100.0, 200.0)
    requests = draw([App("a", Camera(5.0)), App("b", window), App("a", Camera(1.0))], 10.0, 0)
    assert requests.by_tenant() == {"a": 60, "b": 0}


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="a: shares"):
        App("a", Poisson(1.0), ())
    with pytest.raises(ValueError, match="a: shares"):
        App("a", Poisson(1.0), (Mixed(2, FAST), Mixed(-1, FLOOR)))
    with pytest.raises(ValueError, match="streams is 0"):
        App("a", Poisson(1.0), streams=0)
