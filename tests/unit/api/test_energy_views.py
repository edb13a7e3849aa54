from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from werkzeug.test import TestResponse

from api.openapi.document import document
from delen.core.energy_status import Budget

if TYPE_CHECKING:
    from tests.unit.api.conftest import MadeUpEnergy

BATTERY = {"energy_wh": 8, "reserve_wh": 1, "last_s": 2400}


def described(response: TestResponse, path: str, method: str = "get") -> Any:
    """The document of a good answer, checked to be as the OpenAPI description says."""
    assert response.status_code == 200, response.text
    description = document("1")
    operation = description["paths"][path][method]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    components = {"components": description["components"]}
    Draft202012Validator({**schema, **components}).validate(response.json)
    return response.json


def refused(response: TestResponse, status: int, code: str) -> Any:
    schemas = document("1")["components"]["schemas"]
    Draft202012Validator(schemas["Error"]).validate(response.json)
    assert response.json is not None
    assert (response.status_code, response.json["code"]) == (status, code), response.text
    return response.json


def test_power_is_as_described(client: FlaskClient) -> None:
    power = described(client.get("/v1/power"), "/v1/power")
    assert (power["source"], power["watts"], power["state"]) == ("ina3221", 7.5, "ok")
    assert power["mode"]["name"] == "15W"


def test_power_without_a_source_is_as_described(client: FlaskClient, energy: MadeUpEnergy) -> None:
    energy.status = replace(
        energy.status,
        source=None, scope=None, kind="unknown", watts=None, rails={}, state="none", age=None,
        board=None, static=None, dynamic=None, time_constant=None,
    )  # fmt: skip
    assert described(client.get("/v1/power"), "/v1/power")["state"] == "none"


def test_a_put_changes_only_what_it_names(client: FlaskClient) -> None:
    capped = described(client.put("/v1/power", json={"watt_cap_w": 12}), "/v1/power", "put")
    assert capped["constraints"][0]["limit"] == 12
    assert capped["constraints"][0]["price_per_j"] is None
    both = described(client.put("/v1/power", json={"battery": BATTERY}), "/v1/power", "put")
    assert both["battery"]["left_wh"] == pytest.approx(8)
    assert len(both["constraints"]) == 1
    freed = described(client.put("/v1/power", json={"watt_cap_w": None}), "/v1/power", "put")
    assert freed["constraints"] == []
    assert freed["battery"] is not None


def test_a_mode_that_cannot_be_had_says_what_would_help(client: FlaskClient) -> None:
    error = refused(client.put("/v1/power", json={"mode": "15W"}), 503, "power_unavailable")
    assert error["remedy"] == "set power.switch_modes = true"


@pytest.mark.parametrize(
    ("path", "body", "code", "field"),
    [
        ("/v1/power", {"watt_cap": 12}, "unknown_field", "watt_cap"),
        ("/v1/power", {"watt_cap_w": -1}, "invalid_input", "watt_cap_w"),
        ("/v1/power", {"battery": {**BATTERY, "wh": 1}}, "unknown_field", "wh"),
        ("/v1/power?mode=15W", {}, "unknown_field", "mode"),
        ("/v1/tenants/a", {}, "invalid_input", "energy_budget"),
        ("/v1/tenants/a", {"weights": 1}, "unknown_field", "weights"),
        ("/v1/tenants/a", {"weight": 0}, "invalid_input", "weight"),
        ("/v1/tenants/a", {"weight": 2, "priority": 10}, "invalid_input", "priority"),
        ("/v1/tenants/a b", {"energy_budget": None}, "invalid_input", "tenant"),
    ],
)
def test_a_wrong_change_is_refused(
    client: FlaskClient, energy: MadeUpEnergy, path: str, body: Any, code: str, field: str
) -> None:
    assert refused(client.put(path, json=body), 400, code)["field"] == field
    assert energy.status.battery is None
    assert set(energy.set) == {"cam/1"}
    assert not energy.set["cam/1"].is_set


def test_changes_are_guarded_and_looks_are_not(
    make_client: Callable[..., FlaskClient], energy: MadeUpEnergy, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("open")
    client = make_client(token)
    for path in ("/v1/power", "/v1/tenants/a"):
        refused(client.put(path, json={}), 401, "unauthorized")
    assert "a" not in energy.set
    for path in ("/v1/power", "/v1/power/history", "/v1/tenants", "/v1/requests/a-1"):
        assert client.get(path).status_code == 200
    right = {"Authorization": "Bearer open"}
    body = {"energy_budget": {"energy_j": 50, "period_s": 60}}
    described(client.put("/v1/tenants/a", json=body, headers=right), "/v1/tenants/{tenant}", "put")
    assert energy.set["a"].budget == Budget(50.0, 60.0)


def test_the_history_is_asked_for_in_seconds(client: FlaskClient, energy: MadeUpEnergy) -> None:
    path = "/v1/power/history"
    assert len(described(client.get(path), path)["windows"]) == 2
    described(client.get(path, query_string={"seconds": "1"}), path)
    described(client.get(path, query_string={"seconds": "3.6e3"}), path)
    assert energy.asked == [600.0, 1.0, 3600.0]


@pytest.mark.parametrize("seconds", ["0.5", "86401", "nan", "inf", "-1", "all"])
def test_a_history_of_other_seconds_is_refused(client: FlaskClient, seconds: str) -> None:
    response = client.get("/v1/power/history", query_string={"seconds": seconds})
    assert refused(response, 400, "invalid_input")["field"] == "seconds"


def test_a_past_request_is_as_described(client: FlaskClient) -> None:
    told = described(client.get("/v1/requests/a-1"), "/v1/requests/{request_id}")
    assert told["settled"] is True
    assert told["receipt"]["energy_mj"]["value"] == pytest.approx(40.0)
    refused(client.get("/v1/requests/a-2"), 404, "not_found")
    refused(client.get("/v1/requests/a-1?wait=5"), 400, "unknown_field")


def test_tenants_are_as_described(client: FlaskClient, energy: MadeUpEnergy) -> None:
    path = "/v1/tenants/{tenant}"
    body = {"energy_budget": {"energy_j": 50, "period_s": 60}}
    told = described(client.put("/v1/tenants/cam%2F1", json=body), path, "put")
    assert told["budget"] == {"energy_j": 50.0, "period_s": 60.0, "balance_j": 50.0}
    listed = described(client.get("/v1/tenants"), "/v1/tenants")["tenants"]
    assert listed["cam/1"]["budget"]["energy_j"] == 50.0
    told = described(client.put("/v1/tenants/cam/1", json={"energy_budget": None}), path, "put")
    assert told["budget"] is None
    assert not energy.set["cam/1"].is_set


def test_a_put_changes_only_what_it_names_of_a_tenant(client: FlaskClient) -> None:
    path, body = "/v1/tenants/{tenant}", {"weight": 2.5, "priority": 3}
    told = described(client.put("/v1/tenants/a", json=body), path, "put")
    assert (told["weight"], told["priority"], told["budget"]) == (2.5, 3, None)
    told = described(client.put("/v1/tenants/a", json={"weight": None}), path, "put")
    assert (told["weight"], told["priority"]) == (None, 3)


def test_fairness_is_told_beside_the_tenants(client: FlaskClient) -> None:
    told = described(client.get("/v1/tenants"), "/v1/tenants")
    assert told["fairness"] == {"time": 0.9, "energy": None}
