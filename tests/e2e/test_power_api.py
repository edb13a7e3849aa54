"""Power over HTTP: a daemon whose sensors are files answers as its own description says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tests.builders.daemon import Answer, Api, Launcher
    from tests.e2e.conftest import Metered

Image8 = NDArray[np.uint8]
Until = Callable[..., Any]
Metric = Callable[..., float]

TINY = {"energy_budget": {"energy_j": 1e-6, "period_s": 3600}}
NO_BUDGET = {"energy_budget": None}


@pytest.fixture
def api(metered: Metered) -> Api:
    return metered.api


@pytest.fixture
def described(api: Api) -> Callable[..., Any]:
    """The document of a good answer, checked against the daemon's own OpenAPI description."""
    description = api.get("/openapi.json").json()
    components = {"components": description["components"]}

    def check(answer: Answer, path: str, method: str = "get") -> Any:
        assert answer.status == 200, answer.body
        content = description["paths"][path][method]["responses"]["200"]["content"]
        Draft202012Validator({**content["application/json"]["schema"], **components}).validate(
            answer.json()
        )
        return answer.json()

    return check


@pytest.fixture
def put(api: Api) -> Callable[..., Answer]:
    def send(path: str, document: Any) -> Answer:
        body = json.dumps(document).encode()
        return api.request("PUT", path, body=body, content_type="application/json")

    return send


@pytest.fixture
def unlimited(api: Api, put: Callable[..., Answer], until: Until) -> Iterator[None]:
    """Takes every limit away at the end, and waits until energy is free again."""
    yield
    assert put("/v1/power", {"watt_cap_w": None, "battery": None}).status == 200
    assert put("/v1/tenants/poor", NO_BUDGET).status == 200
    until(lambda: api.plan()["price_per_j"] == 0, "a price of 0")


def test_power_names_the_source_the_board_and_its_rails(
    api: Api, described: Callable[..., Any]
) -> None:
    power = described(api.get("/v1/power"), "/v1/power")
    assert (power["source"], power["scope"], power["kind"]) == (
        "ina3221",
        "module_input",
        "measured",
    )
    assert (power["state"], power["board"], power["problem"]) == ("ok", "Orin NX", None)
    assert 7.49 < power["watts"] < 30
    assert set(power["rails"]) == {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}
    assert 0 <= power["age_ms"] < 5000


def test_load_clocks_fan_and_temperatures_are_shown(
    metered: Metered, described: Callable[..., Any], metric: Metric, until: Until
) -> None:
    api, board = metered.api, metered.board

    def device() -> Any:
        return described(api.get("/v1/power"), "/v1/power")["device"]

    board.put(f"{board.gpu}/device/load", 423)
    board.put(f"{board.gpu}/cur_freq", 612_000_000)
    board.put(board.fan, 51)
    board.zone(1, "gpu-thermal", 51.5)
    until(lambda: device()["gpu"] == {"load": 0.423, "clock_mhz": 612.0}, "the GPU's load")
    shown = device()
    assert shown["emc"] == {"load": 0.0, "clock_mhz": 2133.0}
    assert shown["fans"] == [{"name": "pwmfan", "speed": 0.2, "rpm": 0}]
    assert {"name": "gpu-thermal", "celsius": 51.5, "problem": None} in shown["zones"]
    assert shown["cpu"]["cores"][7] == {"core": 7, "load": None, "clock_mhz": 729.6}
    assert metric(api, "delen_gpu_load_ratio") == 0.423
    assert metric(api, "delen_temperature_celsius", zone="gpu-thermal") == 51.5
    board.fail(f"{board.gpu}/device/load")
    until(lambda: device()["gpu"] == {"load": None, "clock_mhz": 612.0}, "an unknown load")
    assert "\ndelen_gpu_load_ratio " not in api.get("/metrics").body.decode()


def test_a_thermal_zone_that_falls_silent_is_said_and_becomes_unknown(
    metered: Metered, described: Callable[..., Any], until: Until
) -> None:
    api, board = metered.api, metered.board

    def shown() -> tuple[Any, Any]:
        power = described(api.get("/v1/power"), "/v1/power")
        zone = next(each for each in power["device"]["zones"] if each["name"] == "tj-thermal")
        thermal = next(each for each in power["constraints"] if each["name"] == "thermal")
        return zone, thermal

    board.zone(3, "tj-thermal", 45.0)
    until(lambda: shown()[1]["value"] is not None, "a known distance")
    board.fail("sys/class/thermal/thermal_zone3/temp")
    zone = until(lambda: (found := shown()[0])["problem"] and found, "the problem of the zone")
    assert zone["celsius"] == 45.0
    zone, thermal = until(lambda: not (now := shown())[1]["value"] and now, "an unknown distance")
    assert zone["celsius"] is None
    assert "tj-thermal" in thermal["explanation"]
    board.zone(3, "tj-thermal", 45.0)
    until(lambda: shown()[1]["value"] is not None, "a known distance again")
    assert metered.daemon.log().count("tj-thermal can no longer be read") == 1


def test_a_receipt_settles(
    api: Api, image: Image8, described: Callable[..., Any], until: Until
) -> None:
    answer = api.raw(image, tenant="settler").json()
    path = f"/v1/requests/{answer['request_id']}"
    first = described(api.get(path), "/v1/requests/{request_id}")
    assert (first["tenant"], first["exit"]) == ("settler", answer["exit"])
    assert answer["receipt"]["energy_mj"]["kind"] == "estimated"
    until(lambda: api.get(path).json()["settled"], "the settled receipt")
    final = described(api.get(path), "/v1/requests/{request_id}")
    assert final["receipt"]["latency_ms"] == answer["receipt"]["latency_ms"]
    energy = final["receipt"]["energy_mj"]
    assert energy["kind"] in ("attributed", "estimated")
    assert energy["value"] is not None
    tenants = described(api.get("/v1/tenants"), "/v1/tenants")["tenants"]
    assert tenants["settler"]["answers"] == 1
    total = sum(tenants["settler"]["energy_j"].values())
    assert 1e3 * total == pytest.approx(energy["value"])


def test_a_request_that_never_was_is_not_found(api: Api) -> None:
    api.get("/v1/requests/0-0").error(404, "not_found")


def test_every_measured_window_adds_up(
    api: Api, image: Image8, described: Callable[..., Any], until: Until
) -> None:
    api.raw(image)
    path = "/v1/power/history"

    def closed() -> list[Any]:
        windows = described(api.get(path, query={"seconds": 60}), path)["windows"]
        return [window for window in windows if window["idle_j"] is not None]

    windows = until(lambda: closed()[1:], "two measured windows")
    for window in windows:
        parts = window["attributed_j"] + window["idle_j"] + window["other_j"]
        assert parts == pytest.approx(window["watts"] * window["seconds"], rel=0.02)
    assert [window["time"] for window in windows] == sorted(window["time"] for window in windows)
    assert described(api.get(path, query={"seconds": 86_400}), path)["windows"]
    api.get(path, query={"seconds": 86_401}).error(400, "invalid_input")


@pytest.mark.usefixtures("unlimited")
def test_limits_are_set_shown_and_taken_away(
    put: Callable[..., Answer], described: Callable[..., Any]
) -> None:
    power = described(put("/v1/power", {"watt_cap_w": 30}), "/v1/power", "put")
    caps = {each["name"]: each["limit"] for each in power["constraints"]}
    assert caps["watt_cap"] == 30
    battery = {"energy_wh": 8, "reserve_wh": 1, "last_s": 2400}
    power = described(put("/v1/power", {"battery": battery}), "/v1/power", "put")
    assert power["battery"]["left_wh"] == pytest.approx(8, rel=0.01)
    assert {"watt_cap", "battery"} <= {each["name"] for each in power["constraints"]}
    power = described(put("/v1/power", {"watt_cap_w": None}), "/v1/power", "put")
    assert "watt_cap" not in {each["name"] for each in power["constraints"]}
    assert power["battery"] is not None
    power = described(put("/v1/power", {"battery": None}), "/v1/power", "put")
    assert power["battery"] is None


@pytest.mark.usefixtures("unlimited")
def test_a_price_makes_plans_shallower_and_says_so(
    api: Api, put: Callable[..., Answer], until: Until
) -> None:
    free = api.plan()
    assert (free["price_per_j"], free["limited_by"]) == (0.0, "depth")
    assert put("/v1/power", {"watt_cap_w": 0.001}).status == 200
    until(lambda: api.plan()["price_per_j"] != 0, "a price")
    dear = until(
        lambda: (plan := api.plan())["limited_by"] == "price" and plan, "a plan under the price"
    )
    assert dear["expected_energy_mj"] < free["expected_energy_mj"]
    assert dear["accuracy"] <= free["accuracy"]
    floor = api.plan(min_accuracy=0.9)
    assert floor["accuracy"] >= 0.9


@pytest.mark.usefixtures("unlimited")
def test_a_spent_budget_refuses_its_tenant_alone(
    api: Api, put: Callable[..., Answer], image: Image8, described: Callable[..., Any],
    metric: Metric,
) -> None:  # fmt: skip
    told = described(put("/v1/tenants/poor", TINY), "/v1/tenants/{tenant}", "put")
    assert told["budget"]["period_s"] == 3600
    refused = api.raw(image, tenant="poor")
    error = refused.error(429, "budget_exhausted")
    assert error["retry_after_s"] > 0
    assert int(refused.headers["Retry-After"]) >= error["retry_after_s"]
    assert api.raw(image, tenant="rich").status == 200
    tenants = described(api.get("/v1/tenants"), "/v1/tenants")["tenants"]
    assert tenants["poor"]["refused"] == 1
    assert tenants["rich"]["budget"] is None
    assert metric(api, "delen_budget_balance_joules", tenant="poor") <= 1e-6
    assert (
        described(put("/v1/tenants/poor", NO_BUDGET), "/v1/tenants/{tenant}", "put")["budget"]
        is None
    )
    assert api.raw(image, tenant="poor").status == 200


@pytest.mark.usefixtures("unlimited")
def test_a_plan_says_what_an_infer_would_be_refused_by(
    api: Api, put: Callable[..., Answer], image: Image8, until: Until
) -> None:
    """What is shown is what happens: the same limit, the same sentence but for its figures."""

    def refused(code: str, status: int, constraint: str, tenant: str) -> None:
        plan = until(
            lambda: (found := api.plan(tenant=tenant))["feasible"] is False and found, constraint
        )
        assert plan["constraint"] == constraint
        assert plan["retry_after_s"] > 0
        error = api.raw(image, tenant=tenant).error(status, code)
        assert plan["problem"].split()[:3] == error["error"].split()[:3]

    assert "constraint" not in api.plan(tenant="poor")
    assert put("/v1/tenants/poor", TINY).status == 200
    refused("budget_exhausted", 429, "budget/poor", "poor")
    assert api.plan(tenant="rich")["feasible"]
    assert put("/v1/power", {"watt_cap_w": 0.1}).status == 200
    refused("overloaded", 503, "watt_cap", "rich")
    empty = {"energy_wh": 1e-6, "reserve_wh": 0, "last_s": 3600}
    assert put("/v1/power", {"watt_cap_w": None, "battery": empty}).status == 200
    refused("overloaded", 503, "battery", "rich")
    assert put("/v1/power", {"battery": None}).status == 200
    until(lambda: api.plan(tenant="rich")["feasible"], "a plan without a limit")


def test_a_plan_may_name_its_tenant(api: Api) -> None:
    assert api.plan(tenant="camera")["feasible"]
    answer = api.post("/v1/plan", body=b'{"tenant": "camera"}', content_type="application/json")
    assert answer.json()["price_per_j"] == 0.0
    api.post("/v1/plan", query={"tenant": "a b"}).error(400, "invalid_input")
    api.post("/v1/plan", query={"priority": 1}).error(400, "unknown_field")


def test_modes_are_not_switched_unless_that_is_allowed(put: Callable[..., Answer]) -> None:
    error = put("/v1/power", {"mode": "MAXN"}).error(403, "forbidden")
    assert "power.switch_modes" in error["error"]


def test_metrics_tell_power_and_the_joules_of_requests(
    api: Api, image: Image8, metric: Metric, until: Until
) -> None:
    exit_ = api.raw(image, tenant="counted").json()["exit"]
    labels = {"tenant": "counted", "model": "cifar10-resnet", "exit": str(exit_)}
    until(lambda: metric(api, "delen_energy_joules_total", **labels), "its joules")
    assert 7.49 < metric(api, "delen_power_watts") < 30
    assert metric(api, "delen_power_rail_watts", rail="VDD_SOC") == pytest.approx(1.5, abs=0.02)
    assert metric(api, "delen_power_source_state", state="ok") == 1
    assert metric(api, "delen_power_windows_total") > 0
    assert metric(api, "delen_board_energy_joules", part="idle") > 0


def test_a_model_says_whether_its_energies_were_measured(api: Api) -> None:
    profile = api.get("/v1/models/cifar10-resnet").json()["profile"]
    assert (profile["energy"], profile["stale"]) == (None, None)


def test_a_sensor_that_vanishes_degrades_and_comes_back(
    metered: Metered, image: Image8, metric: Metric, until: Until
) -> None:
    api, tree = metered.api, metered.tree

    def state() -> str:
        return str(api.get("/v1/power").json()["state"])

    tree.vanish()
    try:
        until(lambda: state() == "degraded", "a degraded source")
        assert api.get("/v1/power").json()["problem"]
        assert metric(api, "delen_power_source_state", state="degraded") == 1
        answer = api.raw(image)
        assert answer.status == 200
        path = f"/v1/requests/{answer.json()['request_id']}"
        until(lambda: api.get(path).json()["settled"], "a receipt without a measurement")
        assert api.get(path).json()["receipt"]["energy_mj"]["kind"] == "estimated"
    finally:
        tree.come_back()
    until(lambda: state() == "ok", "the source's recovery")


def test_a_daemon_without_a_source_says_so(
    launcher: Launcher, image: Image8, described: Callable[..., Any]
) -> None:
    daemon = launcher.start({"power": {"source": "none"}})
    power = described(daemon.api.get("/v1/power"), "/v1/power")
    assert (power["source"], power["state"], power["kind"]) == (None, "none", "unknown")
    answer = daemon.api.raw(image).json()
    settled = described(
        daemon.api.get(f"/v1/requests/{answer['request_id']}"), "/v1/requests/{request_id}"
    )
    assert settled["settled"] is True
    assert settled["receipt"]["energy_mj"]["kind"] == "unknown"
    bounded = daemon.api.raw(image, max_energy_mj=5, on_infeasible="best_effort").json()["receipt"]
    assert (bounded["met"], bounded["energy_mj"]["met"]) == (False, None)
    assert (power["watts"], power["dynamic_w"], power["window"]) == (None, None, None)
    assert daemon.api.get("/v1/power/history").json()["windows"] == []
    for path, limit in (
        ("/v1/power", {"watt_cap_w": 5}),
        ("/v1/tenants/camera", {"energy_budget": {"energy_j": 5, "period_s": 60}}),
    ):
        refused = daemon.api.request("PUT", path, json.dumps(limit).encode(), "application/json")
        assert "power.source is none" in refused.error(503, "power_unavailable")["error"]
    launcher.stop(daemon)
