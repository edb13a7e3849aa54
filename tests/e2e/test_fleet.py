"""A daemon in a fleet: what it says of itself, and what it does for a lease."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from numpy.typing import NDArray

from api.openapi.document import document
from delen.daemon.standing import read_standing
from delen.wire.fleet import Directives, DirectivesInForce
from delen.wire.message import read_answer

if TYPE_CHECKING:
    from tests.builders.daemon import Answer, Api

LEASE = 600


def described(answer: Answer, path: str, method: str = "get") -> Any:
    """The document of a good answer, checked to be as the OpenAPI description says."""
    assert answer.status == 200, answer.body
    whole = document("1")
    schema = whole["paths"][path][method]["responses"]["200"]["content"]["application/json"]
    components = {"components": whole["components"]}
    Draft202012Validator({**schema["schema"], **components}).validate(answer.json())
    return answer.json()


def put(api: Api, **named: Any) -> Answer:
    body = json.dumps(named).encode()
    return api.request("PUT", "/v1/directives", body, "application/json")


@pytest.fixture
def led(api: Api) -> Iterator[Api]:
    """The shared daemon, which decides alone again at the end."""
    yield api
    assert put(api).status == 200


def test_a_standing_says_what_plans_are_made_of(api: Api) -> None:
    document = described(api.get("/v1/standing"), "/v1/standing")
    (model,) = [model for model in document["models"] if model["name"] == "cifar10-resnet"]
    assert (model["resident"], model["load_ms"]) == (True, 0.0)
    points = {(point["exit"], *point["size"]): point for point in model["points"]}
    for exit in api.plan()["pareto"]:
        point = points.get((exit["exit"], *exit["size"]))
        if point is None:
            assert exit["dominated"]
            continue
        assert point["accuracy"] == pytest.approx(exit["accuracy"])
        assert point["latencies_ms"] == sorted(point["latencies_ms"])
        assert point["payload_bytes"] == 3 * exit["size"][0] * exit["size"][1]
    assert document["price_per_joule"] == 0.0
    assert document["slowdown"] > 0
    read = read_standing("here", api.get("/v1/standing").body)
    served = read.model("cifar10-resnet")
    assert served is not None
    assert len(served.points) == len(model["points"])


def test_a_ceiling_holds_for_its_tenant_and_its_lease(
    led: Api, image: NDArray[np.uint8], until: Callable[..., Any], metric: Callable[..., float]
) -> None:
    before = metric(led, "delen_fleet_limited_total")
    ceilings = {"camera": {"exit": 0, "size": [24, 24]}}
    prices = {"door": {"per_second": 1e6, "per_joule": 0.5}}
    answer = described(
        put(led, lease_s=LEASE, ceilings=ceilings, prices=prices), "/v1/directives", "put"
    )
    assert answer["ceilings"] == ceilings
    assert LEASE - 60 < answer["left_s"] <= LEASE
    assert 0 < metric(led, "delen_directives_left_seconds") <= LEASE
    limited = led.raw(image, tenant="camera").json()
    assert (limited["exit"], limited["receipt"]["size"]) == (0, [24, 24])
    plan = led.plan(tenant="camera", max_latency_ms=60_000)
    assert (plan["exit"], plan["size"], plan["limited_by"]) == (0, [24, 24], "fleet")
    assert metric(led, "delen_fleet_limited_total") == before + 1
    dear = led.plan(tenant="door", max_latency_ms=60_000)
    assert (dear["exit"], dear["limited_by"], dear["price_per_j"]) == (0, "price", 0.5)
    assert led.plan(max_latency_ms=60_000)["limited_by"] == "depth"

    put(led, lease_s=0.2, ceilings=ceilings)
    until(lambda: led.plan(tenant="camera")["limited_by"] == "depth", "the daemon decides alone")
    alone = described(led.get("/v1/directives"), "/v1/directives")
    assert alone == {
        "left_s": None,
        "ceilings": {},
        "prices": {},
        "resident": [],
        "not_resident": {},
    }


def test_the_floor_of_a_request_wins_over_a_ceiling(led: Api, image: NDArray[np.uint8]) -> None:
    put(led, lease_s=LEASE, ceilings={"default": {"exit": 0, "size": [20, 20]}})
    answer = led.raw(image, min_accuracy=0.85).json()
    assert answer["receipt"]["accuracy"]["guarantee"] == 0.95
    assert answer["receipt"]["met"] is True
    led.raw(image, min_accuracy=0.999).error(422, "infeasible_bound")


def test_an_empty_directive_withdraws(led: Api) -> None:
    put(led, lease_s=LEASE, ceilings={"default": {"exit": 0}})
    assert led.plan()["exit"] == 0
    withdrawn = read_answer(DirectivesInForce, put(led).body)
    assert withdrawn.left is None
    assert led.plan()["limited_by"] == "depth"


def test_models_to_keep_are_named_once(led: Api) -> None:
    answer = put(led, lease_s=LEASE, resident=["cifar10-resnet", "cifar10-resnet"]).json()
    assert (answer["resident"], answer["not_resident"]) == (["cifar10-resnet"], {})
    assert (answer["ceilings"], answer["prices"]) == ({}, {})


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"[1]", "invalid_input", None),
        (b"\xff", "invalid_input", None),
        (b'{"lease": 3}', "unknown_field", "lease"),
        (b'{"ceilings": {"camera": {"exit": 1}}}', "invalid_input", "lease_s"),
        (b'{"lease_s": 0, "resident": ["second"]}', "invalid_input", "lease_s"),
        (b'{"lease_s": -1, "resident": ["second"]}', "invalid_input", "lease_s"),
        (b'{"lease_s": 3601, "resident": ["second"]}', "invalid_input", "lease_s"),
        (b'{"lease_s": NaN, "resident": ["second"]}', "invalid_input", "lease_s"),
        (b'{"lease_s": 1e999, "resident": ["second"]}', "invalid_input", "lease_s"),
        (b'{"lease_s": 3, "resident": ["second", "birds"]}', "invalid_input", "resident"),
        (b'{"lease_s": 3, "resident": "second"}', "invalid_input", "resident"),
        (b'{"lease_s": 3, "ceilings": {"": {"exit": 1}}}', "invalid_input", "ceilings"),
        (b'{"lease_s": 3, "ceilings": {"a b": {"exit": 1}}}', "invalid_input", "ceilings"),
        (b'{"lease_s": 3, "ceilings": {"a": {"exit": -1}}}', "invalid_input", "exit"),
        (b'{"lease_s": 3, "ceilings": {"a": {"exit": 1.5}}}', "invalid_input", "exit"),
        (b'{"lease_s": 3, "ceilings": {"a": {}}}', "invalid_input", "exit"),
        (b'{"lease_s": 3, "ceilings": {"a": {"exit": 1, "size": [32]}}}', "invalid_input", "size"),
        (b'{"lease_s": 3, "ceilings": {"a":{"exit": 1, "size": [0, 1]}}}', "invalid_input", "size"),
        (b'{"lease_s": 3, "prices": {"a": {"per_second": -1}}}', "invalid_input", "per_second"),
        (b'{"lease_s": 3, "prices": {"a": {"per_second": 1e999}}}', "invalid_input", "per_second"),
        (b'{"lease_s": 3, "prices": {"a": {"per_joule": NaN}}}', "invalid_input", "per_joule"),
        (b'{"lease_s": 3, "prices": {"a": {"joule": 1}}}', "unknown_field", "joule"),
    ],
)  # fmt: skip
def test_garbage_is_refused_by_its_field_and_changes_nothing(
    led: Api, body: bytes, code: str, field: str | None
) -> None:
    put(led, lease_s=LEASE, ceilings={"kept": {"exit": 1}})
    error = led.request("PUT", "/v1/directives", body, "application/json").error(400, code)
    assert error.get("field") == field
    assert led.get("/v1/directives").json()["ceilings"] == {"kept": {"exit": 1, "size": None}}


def test_more_names_than_a_message_may_have_are_refused(led: Api) -> None:
    many = {f"tenant-{number}": {"exit": 1} for number in range(1001)}
    error = put(led, lease_s=3, ceilings=many).error(400, "invalid_input")
    assert error["field"] == "ceilings"
    put(led, lease_s=3, resident=["x" * 300_000]).error(413, "too_large")


def test_what_a_hub_writes_is_what_a_daemon_reads(led: Api) -> None:
    """A message that is written leaves out what it does not name."""
    from delen.wire.fleet import CeilingChange, TenantPriceChange
    from delen.wire.message import write

    message = Directives(
        lease=3.0,
        ceilings={"camera": CeilingChange(2, (24, 24))},
        prices={"camera": TenantPriceChange(per_second=0.5)},
    )
    answer = led.request("PUT", "/v1/directives", write(message), "application/json")
    read = read_answer(DirectivesInForce, answer.body)
    assert read.ceilings["camera"].size == (24, 24)
    assert read.prices["camera"].per_second == 0.5
