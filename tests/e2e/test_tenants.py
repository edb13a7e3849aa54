"""Tenants of one daemon: what is set of them, and an app that floods beside one that does not."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pytest
from numpy.typing import NDArray

import delen

if TYPE_CHECKING:
    from tests.builders.daemon import Api, Daemon, Launcher

Image8 = NDArray[np.uint8]
BACKLOG = 0.05


@pytest.fixture(scope="module")
def start(launcher: Launcher, own_state: Callable[[], Path]) -> Callable[[], Daemon]:
    """Starts daemons that keep their tenants in one folder of their own."""
    own = own_state()

    def make() -> Daemon:
        server = {"max_backlog_seconds": BACKLOG}
        return launcher.start({"state": {"path": str(own)}, "server": server})

    return make


@pytest.fixture(scope="module")
def house(start: Callable[[], Daemon]) -> Daemon:
    return start()


def tenant(api: Api, name: str) -> dict[str, Any]:
    told: dict[str, Any] = api.get("/v1/tenants").json()["tenants"][name]
    return told


def test_a_flood_is_refused_and_a_calm_app_beside_it_is_not(
    house: Daemon, images: Image8, npy: Callable[..., bytes], metric: Callable[..., float]
) -> None:
    """Batches of the flood are more work than may wait for one tenant, but it ran before."""
    api, body = house.api, npy(np.concatenate([images, images]))
    assert api.raw(images[0], tenant="flood").status == 200
    for _ in range(2):
        assert api.raw(images[0], tenant="calm").status == 200

    def flood(number: int) -> tuple[int, str]:
        tenant = "flood" if number % 2 else f"flood-{number}"
        answer = api.post("/v1/infer", body=body, content_type="application/x-npy",
                          query={"tenant": tenant, "priority": 1})  # fmt: skip
        return answer.status, answer.json().get("code", "")

    with ThreadPoolExecutor(8) as pool:
        flooding = pool.map(flood, range(40))
        calm = [api.raw(image, tenant="calm", max_latency_ms=20_000) for image in images]
        ended = list(flooding)
    assert [answer.status for answer in calm] == [200] * len(calm)
    assert all(answer.json()["receipt"]["met"] for answer in calm)
    assert (503, "overloaded") in ended
    told = tenant(api, "calm")
    assert (told["requests"], told["refused"], told["refused_why"]) == (len(calm) + 2, 0, {})
    assert told["missed"] == {"latency": 0, "accuracy": 0, "energy": 0}
    assert 0 < told["device"]["share"] < 1
    assert tenant(api, "flood")["refused_why"]["overloaded"] > 0
    refused = metric(api, "delen_tenant_refused_total", tenant="flood", code="overloaded")
    assert refused == tenant(api, "flood")["refused_why"]["overloaded"]
    assert metric(api, "delen_tenant_device_seconds_total", tenant="calm") > 0
    assert 0 < metric(api, "delen_fairness_jain", by="time") <= 1


def test_what_is_impossible_is_refused_and_counted(house: Daemon, image: Image8) -> None:
    for _ in range(3):
        house.api.raw(image, tenant="dreamer", min_accuracy=1.0).error(422, "infeasible_bound")
    told = tenant(house.api, "dreamer")
    assert (told["requests"], told["refused_why"]) == (3, {"infeasible_bound": 3})
    assert told["device"]["seconds"] == 0


@pytest.mark.parametrize("name", ["cam/1", "cam//1", "cam/", "cam/../x", "cam/./x", "x:1"])
def test_a_name_with_slashes_is_one_name(house: Daemon, name: str) -> None:
    for escaped in (quote(name, safe=""), name):
        answer = house.api.put(f"/v1/tenants/{escaped}", {"weight": 2})
        assert answer.json()["weight"] == 2.0
        assert tenant(house.api, name)["weight"] == 2.0
        house.api.put(f"/v1/tenants/{escaped}", {"weight": None})
    with delen.Client(house.url) as client:
        assert client.set_tenant(name, weight=3.0)["weight"] == 3.0
        assert client.tenants()[name]["weight"] == 3.0
        client.set_tenant(name, weight=None)


@pytest.mark.parametrize("name", ["%2Fcam", "/cam", "%2F", "cam%00", "cam%0A", "%"])
def test_a_wrong_name_in_the_address_is_refused(house: Daemon, name: str) -> None:
    answer = house.api.put(f"/v1/tenants/{name}", {"weight": 2})
    assert answer.status in (400, 404)
    assert answer.json()["code"] in ("invalid_input", "not_found")


def test_weights_and_priorities_are_set_shown_and_kept(
    start: Callable[[], Daemon], house: Daemon, launcher: Launcher, image: Image8
) -> None:
    with delen.Client(house.url) as client:
        told = client.set_tenant("camera", weight=2.5, priority=3)
        assert (told["weight"], told["priority"], told["budget"]) == (2.5, 3, None)
        told = client.set_tenant("camera", energy=50.0, period=60.0)
        assert (told["weight"], told["budget"]["energy_j"]) == (2.5, 50.0)
        told = client.set_tenant("camera", priority=None)
        assert (told["weight"], told["priority"]) == (2.5, None)
        assert client.infer(image).label
        other = client.tenants()["default"]
        assert (other["weight"], other["priority"]) == (None, None)
    launcher.stop(house)
    again = start()
    told = tenant(again.api, "camera")
    assert (told["weight"], told["priority"], told["answers"]) == (2.5, None, 0)
    assert told["budget"]["energy_j"] == 50.0
    body = {"energy_budget": None, "weight": None}
    gone = again.api.put("/v1/tenants/camera", body)
    assert gone.json()["weight"] is None
    launcher.stop(again)


def test_a_change_that_cannot_be_written_is_507_and_not_in_force(
    launcher: Launcher, own_state: Callable[[], Path]
) -> None:
    own = own_state()
    daemon = launcher.start({"state": {"path": str(own)}})
    with delen.Client(daemon.url) as client:
        client.set_tenant("camera", weight=2.5, energy=50.0, period=60.0)
        aside = own.with_name("aside")
        own.rename(aside)
        own.touch()
        answer = daemon.api.put("/v1/tenants/camera", {"weight": 3})
        assert str(own) in answer.error(507, "not_kept")["error"]
        with pytest.raises(delen.NotKept):
            client.set_tenant("camera", energy=None, period=None)
        with pytest.raises(delen.NotKept):
            client.set_tenant("other", priority=1)
        own.unlink()
        aside.rename(own)
        told = client.tenants()
        assert "other" not in told
        assert (told["camera"]["weight"], told["camera"]["budget"]["energy_j"]) == (2.5, 50.0)
        assert client.set_tenant("camera", weight=3.0)["weight"] == 3.0
    assert json.loads((own / "tenants.json").read_text())["tenants"]["camera"]["weight"] == 3.0
    launcher.stop(daemon)


def test_a_full_disk_is_507(launcher: Launcher, own_state: Callable[[], Path]) -> None:
    """A file of the daemon may have no byte, as on a disk that is full."""
    own = own_state()
    daemon = launcher.start({"state": {"path": str(own)}, "log": {"level": "error"}})
    limits = resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (0, -1))
    body = {"priority": 2}
    daemon.api.put("/v1/tenants/camera", body).error(507, "not_kept")
    assert "camera" not in daemon.api.get("/v1/tenants").json()["tenants"]
    assert [file.name for file in own.glob("*tenants*")] == []
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, limits)
    assert daemon.api.put("/v1/tenants/camera", body).status == 200
    launcher.stop(daemon)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"weight": 0.0}, "weight"),
        ({"weight": 1e6}, "weight"),
        ({"priority": 0}, "priority"),
        ({"priority": True}, "priority"),
    ],
)
def test_a_wrong_standing_is_refused_before_anything_is_sent(
    given: dict[str, Any], field: str, closed_url: str
) -> None:
    with delen.Client(closed_url) as client, pytest.raises(delen.InvalidInput) as caught:
        client.set_tenant("camera", **given)
    assert caught.value.field == field


def test_a_change_of_nothing_is_refused(closed_url: str) -> None:
    with (
        delen.Client(closed_url) as client,
        pytest.raises(delen.InvalidInput, match="name what to change"),
    ):
        client.set_tenant("camera")
