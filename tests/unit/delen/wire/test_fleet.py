"""Messages of fleets, from JSON to values and back."""

from __future__ import annotations

import json

import pytest

from delen.errors import InvalidInput, UnknownField
from delen.wire.fleet import (
    Ceiling,
    Directives,
    Link,
    LinkGiven,
    Nodes,
    Route,
    RouteRequest,
    Standing,
    StandingModel,
    StandingPoint,
)
from delen.wire.message import Megabits, Milli, read_answer, write


def standing() -> Standing:
    point = StandingPoint(
        exit=2,
        size=(64, 64),
        accuracy=0.9,
        latencies=(Milli(0.01), Milli(0.015)),
        payload=1200.0,
        energy=None,
    )
    model = StandingModel("pets", "ab" * 32, False, Milli(0.8), (point,))
    return Standing(
        node="board",
        time=1.75e9,
        models=(model,),
        backlog=Milli(0.04),
        slowdown=1.2,
        utilisation=0.5,
        price=0.0,
        price_per_joule=0.3,
        links={"server": Link(Megabits(1e6), Milli(0.002))},
    )


def test_standing_is_written_in_the_units_of_rest() -> None:
    written = json.loads(write(standing()))
    assert written == {
        "node": "board",
        "time": 1.75e9,
        "models": [
            {
                "name": "pets",
                "bundle": "ab" * 32,
                "resident": False,
                "load_ms": 800.0,
                "points": [
                    {
                        "exit": 2,
                        "size": [64, 64],
                        "accuracy": 0.9,
                        "latencies_ms": [10.0, 15.0],
                        "payload_bytes": 1200.0,
                        "energy_mj": None,
                    }
                ],
            }
        ],
        "backlog_ms": 40.0,
        "slowdown": 1.2,
        "utilisation": 0.5,
        "price": 0.0,
        "price_per_joule": 0.3,
        "links": {"server": {"bandwidth_mbps": 8.0, "delay_ms": 2.0}},
    }


def test_standing_is_read_as_it_was_written() -> None:
    assert read_answer(Standing, write(standing())) == standing()


def test_directives_are_read() -> None:
    read = Directives.read(
        {
            "lease_s": 3,
            "ceilings": {
                "camera": {"exit": 2, "size": [160, 160]},
                "other": {"exit": 0},
                "door": {"size": [24, 24]},
            },
            "prices": {"camera": {"per_second": 0.5}},
            "resident": ["pets"],
        }
    )
    assert read.lease == 3
    assert read.ceilings["camera"].size == (160, 160)
    assert read.ceilings["other"].size is None
    assert (read.ceilings["door"].exit, read.ceilings["door"].size) == (None, (24, 24))
    assert read.prices["camera"].per_second == 0.5
    assert read.prices["camera"].per_joule == 0.0
    assert read.resident == ("pets",)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"lease_s": "3"}, "lease_s"),
        ({"ceilings": {"camera": {"exit": -1}}}, "exit"),
        ({"ceilings": {"camera": {"exit": 1, "size": [160]}}}, "size"),
        ({"ceilings": {"camera": {"exit": 1, "size": "160x160"}}}, "size"),
        ({"ceilings": [1]}, "ceilings"),
        ({"prices": {"camera": {"per_second": "much"}}}, "per_second"),
        ({"resident": "pets"}, "resident"),
        ({"resident": [3]}, "resident"),
        ([], None),
    ],
)
def test_garbage_is_refused_by_its_field(document: object, field: str | None) -> None:
    with pytest.raises(InvalidInput) as raised:
        Directives.read(document)
    assert raised.value.field == field


@pytest.mark.parametrize(
    "document",
    [{"lease": 3}, {"ceilings": {"a": {"exit": 1, "deep": 2}}}, {"prices": {"a": {"joule": 1}}}],
)
def test_unknown_fields_are_refused(document: object) -> None:
    with pytest.raises(UnknownField):
        Directives.read(document)


def test_route_request_has_defaults() -> None:
    read = RouteRequest.read(
        {
            "client": "door",
            "model": "pets",
            "fps": 15,
            "deadline_ms": 100,
            "links": {"board": {"bandwidth_mbps": 8, "delay_ms": 1}, "server": {"delay_ms": 4}},
        }
    )
    assert (read.tenant, read.min_accuracy, read.bundle) == ("default", 0.0, None)
    assert read.deadline == pytest.approx(0.1)
    assert read.links["board"].bandwidth == pytest.approx(1e6)
    assert read.links["server"] == LinkGiven(None, Milli(0.004))


@pytest.mark.parametrize("link", [{"x": 5}, {"bandwith_mbps": 8}])
def test_unknown_fields_of_a_link_are_refused_in_a_request_alone(link: dict[str, float]) -> None:
    asked = {"client": "a", "model": "pets", "fps": 1, "deadline_ms": 9, "links": {"b": link}}
    with pytest.raises(UnknownField) as raised:
        RouteRequest.read(asked)
    assert raised.value.field == next(iter(link))
    said = {**json.loads(write(standing())), "links": {"server": link}}
    assert read_answer(Standing, json.dumps(said).encode()).links["server"] == Link()


def test_route_without_a_limit_on_its_rate() -> None:
    written = Route(
        "board", "http://board:8000", 3.0, Milli(0.05), Ceiling(2), Milli(0.02), float("inf")
    )
    document = json.loads(write(written))
    assert document["rate_fps"] is None
    assert document["ceiling"] == {"exit": 2, "size": None}
    assert read_answer(Route, write(written)).rate is None


def test_newer_fields_of_answers_are_passed_over() -> None:
    assert read_answer(Nodes, b'{"nodes": [], "more": 1}').nodes == ()
