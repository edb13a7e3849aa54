"""Everything but inference: models, power, health, metrics, the description, and the guard."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.builders.daemon import Api, wait_until

if TYPE_CHECKING:
    from tests.builders.daemon import Daemon, Launcher

Image8 = NDArray[np.uint8]


def test_the_models_are_listed(api: Api) -> None:
    models = {model["name"]: model for model in api.get("/v1/models").json()["models"]}
    assert set(models) == {"cifar10-resnet", "second", "spoken-digits"}
    assert models["cifar10-resnet"]["default"] is True
    assert models["second"]["default"] is False
    assert models["cifar10-resnet"]["state"] == "ready"


def test_a_model_is_described(api: Api) -> None:
    model = api.get("/v1/models/cifar10-resnet").json()
    assert model["input"]["dtype"] == "uint8"
    assert model["input"]["shape"] == [32, 32, 3]
    assert model["input"]["image"]["mode"] == "RGB"
    assert model["classes"] == len(model["labels"]) == 10
    assert [exit["exit"] for exit in model["exits"]] == [0, 1, 2, 3, 4]
    macs = [exit["macs"] for exit in model["exits"]]
    assert macs == sorted(macs)
    assert model["max_batch"] >= 1
    assert model["profile"]["slowdown"] > 0
    assert model["calibration"] == {"samples": 4000, "groups": None, "highest_floor": 0.9989}
    assert model["sizes"] == [[20, 20], [24, 24], [32, 32]]
    assert model["problem"] is None


def test_a_model_is_loaded_unloaded_and_loaded_again(api: Api, image: Image8) -> None:
    path = "/v1/models/second"
    assert api.post(f"{path}/unload").json()["state"] == "unloaded"
    for verb, arguments in (
        ("infer", {"body": image.tobytes(), "content_type": "application/octet-stream"}),
        ("plan", {}),
    ):
        refused = api.post(f"{path}/{verb}", **arguments)
        error = refused.error(503, "model_loading")
        assert int(refused.headers["Retry-After"]) >= 1
        assert error["retry_after_s"] > 0
        assert "load" in error["error"]
    for _ in range(2):
        assert api.post(f"{path}/load").json()["state"] == "ready"
        answer = api.raw(image, f"{path}/infer")
        assert answer.status == 200
        assert answer.json()["model"] == "second"
        assert api.post(f"{path}/load").json()["state"] == "ready"
        assert api.post(f"{path}/unload").json()["state"] == "unloaded"
    assert api.get(path).json()["state"] == "unloaded"
    assert api.raw(image).status == 200


def test_nothing_of_a_model_is_left_once_it_is_unloaded(launcher: Launcher) -> None:
    """Each of its graphs has a thread of its own here."""
    models = {"default": "spoken-digits", "load": ["spoken-digits"]}
    device = {"threads": 2, "instances": 1}
    daemon = launcher.start({"device": device, "models": models, "server": {"threads": 1}})
    path, threads = "/v1/models/spoken-digits", Path(f"/proc/{daemon.process.pid}/task")

    graphs = len(daemon.api.get(path).json()["exits"])
    loaded = len(list(threads.iterdir()))

    def are_gone() -> bool:
        return len(list(threads.iterdir())) <= loaded - graphs

    for _ in range(3):
        assert daemon.api.post(f"{path}/unload").status == 200
        wait_until(are_gone, "the threads of its graphs gone")
        assert daemon.api.post(f"{path}/load").status == 200
    launcher.stop(daemon)


def _series_of(api: Api, model: str) -> set[str]:
    lines = api.get("/metrics").body.decode().splitlines()
    return {line.split("{")[0] for line in lines if f'model="{model}"' in line}


def test_an_unloaded_model_leaves_the_metrics_and_its_counts_come_back_with_it(
    launcher: Launcher,
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    image: Image8,
    metric: Any,
) -> None:
    folder = make_bundle(tmp_path / "bundles" / "second", name="second")
    daemon = launcher.start({"models": {"path": str(folder.parent)}})
    assert daemon.api.post("/v1/models/second/load").status == 200
    assert daemon.api.raw(image, "/v1/models/second/infer").status == 200
    series = {"delen_jobs", "delen_slowdown", "delen_answers_total"}
    assert _series_of(daemon.api, "second") >= series
    assert daemon.api.post("/v1/models/second/unload").status == 200
    assert _series_of(daemon.api, "second") == set()
    assert _series_of(daemon.api, "cifar10-resnet") >= series - {"delen_answers_total"}
    assert daemon.api.post("/v1/models/second/load").status == 200
    assert metric(daemon.api, "delen_answers_total", model="second") == 1
    shutil.rmtree(folder)
    assert daemon.api.post("/v1/models/second/unload").status == 200
    daemon.reload()
    assert _series_of(daemon.api, "second") == set()
    launcher.stop(daemon)


def test_power_tells_watts_their_source_and_kind(api: Api) -> None:
    power = api.get("/v1/power").json()
    assert power["source"] == "model"
    assert power["kind"] == "estimated"
    assert power["scope"] == "processor"
    assert power["watts"] >= 0
    assert power["rails"]["processor"] == power["watts"]


def test_the_daemon_is_alive_and_ready(api: Api) -> None:
    assert api.get("/healthz").json()["status"] == "ok"
    ready = api.get("/readyz").json()
    assert ready["status"] == "ready"
    assert ready["device"]["provider"] == "cpu"


def test_a_daemon_whose_default_model_is_not_loaded_is_not_ready(
    launcher: Launcher, image: Image8
) -> None:
    daemon = launcher.start({"models": {"load": []}})
    assert daemon.api.get("/healthz").status == 200
    refused = daemon.api.get("/readyz")
    refused.error(503, "model_loading")
    assert refused.headers["Retry-After"]
    daemon.api.raw(image).error(503, "model_loading")
    assert daemon.api.post("/v1/models/cifar10-resnet/load").status == 200
    assert daemon.api.get("/readyz").status == 200
    assert daemon.api.raw(image).status == 200
    launcher.stop(daemon)


def test_metrics_count_what_was_done(api: Api, image: Image8, metric: Any) -> None:
    def counts() -> dict[str, float]:
        return {
            "answers": metric(api, "delen_answers_total", model="cifar10-resnet"),
            "latency": metric(api, "delen_latency_seconds_count", model="cifar10-resnet"),
            "queue": metric(api, "delen_queue_seconds_count", model="cifar10-resnet"),
            "missed": metric(api, "delen_bounds_missed_total", bound="latency"),
            "errors": metric(api, "delen_errors_total", code="infeasible_bound"),
        }

    before = counts()
    for _ in range(3):
        api.raw(image)
    api.raw(image, max_latency_ms=1e-4)
    api.raw(image, max_latency_ms=1e-4, on_infeasible="best_effort")
    wait_until(lambda: counts()["answers"] == before["answers"] + 4, "four answers counted")
    after = counts()
    assert {name: after[name] - before[name] for name in after} == {
        "answers": 4,
        "latency": 4,
        "queue": 4,
        "missed": 1,
        "errors": 1,
    }
    assert metric(api, "delen_segment_seconds_total", segment="0") > 0
    assert metric(api, "delen_batch_size_count") > 0
    assert metric(api, "delen_slowdown", model="cifar10-resnet") > 0
    assert metric(api, "delen_jobs") == 0


def test_many_tenants_do_not_make_many_metrics(launcher: Launcher, image: Image8) -> None:
    daemon = launcher.start()
    for number in range(120):
        assert daemon.api.raw(image, tenant=f"t{number}").status == 200
    exposed = daemon.api.get("/metrics").body.decode()
    assert 'tenant="t99"' in exposed
    assert 'tenant="t119"' not in exposed
    assert 'tenant="_other"' in exposed
    launcher.stop(daemon)


def test_the_description_is_valid_and_names_just_the_addresses_that_are(
    api: Api, image: Image8
) -> None:
    from openapi_spec_validator import validate

    from api.metrics.requests import Metrics
    from api.refusals import Refusals
    from api.views import Service, create_control

    document = api.get("/openapi.json").json()
    validate(document)
    names = {"model": "second", "tenant": "t1", "request_id": api.raw(image).json()["request_id"]}
    names |= {"version": "1", "name": "region"}
    for path, operations in document["paths"].items():
        for method in operations:
            if path.startswith("/v2/repository/models"):
                continue  # that would load or unload it for the other tests
            asked = "HEAD" if path == "/v1/events" else method.upper()  # it does not end
            answer = api.request(asked, path.format(**names))
            assert answer.status not in (404, 405), f"{method} {path}"
    unused: Any = None
    metrics = Metrics()
    app = create_control(Service(unused, unused, metrics, *[unused] * 7), Refusals(metrics))
    served = {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(rule)) for rule in app.url_map.iter_rules()}
    assert served == {path for path in document["paths"] if not path.startswith("/v2")}


def test_a_token_guards_what_changes_the_daemon_alone(
    launcher: Launcher, image: Image8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import delen
    from delen.errors import ConfigError, Forbidden, Unauthorized

    token = tmp_path / "token"
    token.write_text("open sesame\n")
    daemon = launcher.start({"server": {"token_file": str(token)}})
    api, path = daemon.api, "/v1/models/cifar10-resnet/load"
    refused = api.post(path)
    refused.error(401, "unauthorized")
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    api.post(path, headers={"Authorization": "Basic abc"}).error(401, "unauthorized")
    for wrong in ("Bearer open", "Bearer öpen"):
        api.post(path, headers={"Authorization": wrong}).error(403, "forbidden")
    right = {"Authorization": "Bearer open sesame"}
    assert api.post(path, headers=right).status == 200
    assert api.post(path.replace("load", "unload"), headers=right).status == 200
    assert api.post(path, headers=right).status == 200
    assert api.raw(image).status == 200
    api.request("PUT", "/v1/directives").error(401, "unauthorized")
    assert api.request("PUT", "/v1/directives", headers=right).status == 200
    assert api.get("/v1/standing").status == api.get("/v1/directives").status == 200

    with delen.Client(daemon.url) as without, pytest.raises(Unauthorized):
        without.load("cifar10-resnet")
    with delen.Client(daemon.url, token="wrong") as wrong_client, pytest.raises(Forbidden):
        wrong_client.unload("cifar10-resnet")
    monkeypatch.setenv("DELEN_TOKEN_FILE", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"DELEN_TOKEN_FILE: .*gone cannot be read"):
        delen.Client(daemon.url)
    monkeypatch.setenv("DELEN_TOKEN_FILE", str(token))
    with delen.Client(daemon.url) as client:
        assert client.load("cifar10-resnet")["state"] == "ready"

    token.write_text("another")
    daemon.reload()
    api.post(path, headers=right).error(403, "forbidden")
    assert api.post(path, headers={"Authorization": "Bearer another"}).status == 200
    launcher.stop(daemon)


def address_of_this_machine() -> str:
    """One that is not loopback; a client that connects to it comes from it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))  # nothing is sent
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def test_callers_from_elsewhere_may_ask_and_change_nothing_without_a_token(
    launcher: Launcher, image: Image8
) -> None:
    host = address_of_this_machine()
    if host.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    daemon = launcher.start({"server": {"host": "0.0.0.0", "insecure": True}})
    port, path = daemon.url.rpartition(":")[2], "/v1/models/cifar10-resnet"
    elsewhere, here = Api(f"http://{host}:{port}"), Api(f"http://127.0.0.1:{port}")
    for verb in ("load", "unload"):
        error = elsewhere.post(f"{path}/{verb}").error(403, "forbidden")
        assert "server.token_file" in error["error"]
    elsewhere.request("PUT", "/v1/directives").error(403, "forbidden")
    assert elsewhere.raw(image).status == here.raw(image).status == 200
    assert here.post(f"{path}/load").status == 200
    launcher.stop(daemon)


def test_a_token_file_that_is_missing_or_empty_is_refused(
    launcher: Launcher, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for file in (empty, tmp_path / "missing"):
        ended = launcher.refused({"server": {"token_file": str(file)}})
        assert ended.returncode == 2
        assert str(file) in ended.stderr


def test_more_waiting_work_than_allowed_is_refused_as_overload(
    overloaded: Daemon, images: Image8
) -> None:
    for array in (images[0], images):
        refused = overloaded.api.raw(array)
        error = refused.error(503, "overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
        assert error["retry_after_s"] > 0
