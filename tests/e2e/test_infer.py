"""``POST .../infer``: every content type, every option, every field of the answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from tests.builders.daemon import Answer, Api, Daemon
    from tests.e2e.conftest import Gated

Image8 = NDArray[np.uint8]
Encode = Callable[[Image8], bytes]


@pytest.fixture
def forms(png: Encode, jpeg: Encode, npy: Encode) -> dict[str, Callable[[Image8], bytes]]:
    """Content type: how an image becomes a body of it."""
    return {
        "application/json": lambda image: json.dumps({"input": image.tolist()}).encode(),
        "image/png": png,
        "image/jpeg": jpeg,
        "application/x-npy": npy,
        "application/octet-stream": lambda image: image.tobytes(),
    }


def _ok(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    return answer.json()


def test_one_image_gets_the_same_label_in_every_form(
    api: Api, image: Image8, forms: dict[str, Encode]
) -> None:
    answers = {
        form: _ok(
            api.post(
                "/v1/models/cifar10-resnet/infer",
                body=encode(image),
                content_type=form,
                query={"probabilities": "true"},
            )
        )
        for form, encode in forms.items()
    }
    assert len({answer["predictions"][0]["label"] for answer in answers.values()}) == 1
    expected = answers["application/octet-stream"]["probabilities"]
    for form in ("application/json", "image/png", "application/x-npy"):
        assert answers[form]["probabilities"] == pytest.approx(expected, abs=1e-5), form


@pytest.mark.parametrize("form", ["image/png", "image/jpeg"])
def test_an_image_of_another_size_and_mode_is_fitted(
    api: Api, image: Image8, form: str, forms: dict[str, Encode]
) -> None:
    large = np.asarray(Image.fromarray(image).resize((96, 80), Image.Resampling.BICUBIC))
    label = _ok(api.raw(image))["predictions"][0]["label"]
    fitted = _ok(api.post("/v1/infer", body=forms[form](large), content_type=form))
    assert fitted["predictions"][0]["label"] == label
    grey = np.asarray(Image.fromarray(image).convert("L"))
    assert api.post("/v1/infer", body=forms[form](grey), content_type=form).status == 200


@pytest.mark.parametrize("media_type", ["application/x-npy", "application/octet-stream"])
def test_a_batch_gives_each_of_its_samples_its_own_result(
    api: Api, images: Image8, media_type: str, forms: dict[str, Encode]
) -> None:
    batch = images[:6]
    document = _ok(api.post("/v1/infer", body=forms[media_type](batch), content_type=media_type))
    singly = [_ok(api.raw(image)) for image in batch]
    assert [r["predictions"][0]["index"] for r in document["results"]] == [
        r["predictions"][0]["index"] for r in singly
    ]
    assert [r["exit"] for r in document["results"]] == [r["exit"] for r in singly]
    assert len({r["request_id"] for r in document["results"]}) == len(batch)


def test_a_batch_of_one_is_still_a_batch(api: Api, image: Image8, npy: Encode) -> None:
    body = npy(image[np.newaxis])
    document = _ok(api.post("/v1/infer", body=body, content_type="application/x-npy"))
    assert len(document["results"]) == 1


def test_a_json_batch_gives_results(api: Api, images: Image8) -> None:
    document = _ok(api.as_json({"input": images[:2].tolist(), "top_k": 2}))
    assert [len(result["predictions"]) for result in document["results"]] == [2, 2]


def test_a_column_major_npy_is_read_right(api: Api, image: Image8, npy: Encode) -> None:
    body = npy(np.asfortranarray(image))
    answer = _ok(api.post("/v1/infer", body=body, content_type="application/x-npy"))
    assert answer["predictions"] == _ok(api.raw(image))["predictions"]


def test_npy_files_are_read_in_many_threads_at_once(api: Api, image: Image8, npy: Encode) -> None:
    body = npy(image)

    def ask(_: int) -> int:
        return api.post("/v1/infer", body=body, content_type="application/x-npy").status

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(400))) == {200}


def test_v1_infer_is_the_default_model(api: Api, image: Image8) -> None:
    default = _ok(api.raw(image))
    named = _ok(api.raw(image, "/v1/models/cifar10-resnet/infer"))
    assert default["model"] == named["model"] == "cifar10-resnet"
    assert default["predictions"] == named["predictions"]


def test_models_default_chooses_the_model_of_v1_infer(
    launcher: Any, bundles: Any, image: Image8
) -> None:
    daemon = launcher.start(
        {"models": {"path": str(bundles), "default": "second", "load": ["second"]}}
    )
    assert _ok(daemon.api.raw(image))["model"] == "second"
    launcher.stop(daemon)


def test_the_answer_has_every_field_of_the_contract(api: Api, image: Image8) -> None:
    bounds = {"max_latency_ms": 20_000, "min_accuracy": 0.75, "max_energy_mj": 100_000}
    answer = _ok(api.as_json({"input": image.tolist(), **bounds}))
    assert answer["model"] == "cifar10-resnet"
    assert isinstance(answer["version"], str)
    assert isinstance(answer["request_id"], str)
    assert answer["request_id"]
    (prediction,) = answer["predictions"]
    assert isinstance(prediction["index"], int)
    assert isinstance(prediction["label"], str)
    assert 0 < prediction["probability"] <= 1
    assert answer["exits"] == 5
    assert answer["exit"] in range(5)
    assert answer["reason"] in ("confident", "planned_exit", "final")
    receipt = answer["receipt"]
    assert receipt["met"] is True
    latency, accuracy, energy = (receipt[name] for name in ("latency_ms", "accuracy", "energy_mj"))
    assert latency["bound"] == 20_000
    assert 0 <= latency["queue"] <= latency["value"] <= 20_000
    assert latency["predicted"] > 0
    assert latency["met"] is True
    assert accuracy["bound"] == 0.75
    assert 0 < accuracy["expected"] <= 1
    assert accuracy["guarantee"] == 0.95
    assert accuracy["met"] is True
    assert energy["bound"] == 100_000
    assert 0 <= energy["value"] <= 100_000
    assert 0 < energy["predicted"] <= 100_000
    assert (energy["kind"], energy["source"]) == ("estimated", "model")
    assert isinstance(energy["scope"], str)
    assert energy["met"] is True


def test_bounds_that_are_not_set_are_null(api: Api, image: Image8) -> None:
    receipt = _ok(api.raw(image))["receipt"]
    assert receipt["met"] is True
    for name in ("latency_ms", "accuracy", "energy_mj"):
        assert receipt[name]["bound"] is None
        assert receipt[name]["met"] is None
    assert receipt["accuracy"]["guarantee"] is None


def test_every_request_has_its_own_id(api: Api, image: Image8) -> None:
    assert len({_ok(api.raw(image))["request_id"] for _ in range(5)}) == 5


def test_probabilities_are_given_when_asked_for(api: Api, image: Image8) -> None:
    assert "probabilities" not in _ok(api.raw(image))
    answer = _ok(api.as_json({"input": image.tolist(), "probabilities": True}))
    assert len(answer["probabilities"]) == 10
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-4)
    best = answer["predictions"][0]
    assert answer["probabilities"][best["index"]] == pytest.approx(best["probability"], abs=1e-6)


@pytest.mark.parametrize("top_k", [1, 3, 10])
def test_top_k_lists_the_most_probable_classes(api: Api, image: Image8, top_k: int) -> None:
    answer = _ok(api.raw(image, top_k=top_k, probabilities="true"))
    listed = [p["probability"] for p in answer["predictions"]]
    assert listed == pytest.approx(sorted(answer["probabilities"], reverse=True)[:top_k])
    assert len({p["index"] for p in answer["predictions"]}) == top_k


def test_tenant_and_stream_come_back_and_the_tenant_is_counted(
    api: Api, image: Image8, metric: Callable[..., float], until: Callable[..., Any]
) -> None:
    answer = _ok(api.raw(image, tenant="camera-7", stream="front"))
    assert (answer["tenant"], answer["stream"]) == ("camera-7", "front")
    assert metric(api, "delen_answers_total", tenant="camera-7") == 1
    until(
        lambda: metric(api, "delen_energy_joules_total", tenant="camera-7") > 0,
        "the tenant's settled joules",
    )
    without = _ok(api.raw(image))
    assert (without["tenant"], without["stream"]) == ("default", None)


def test_a_higher_priority_is_served_first(
    gated: Gated, images: Image8, metric: Callable[..., float], until: Any
) -> None:
    api, gate = gated.api, gated.gate
    gate.close()
    with ThreadPoolExecutor(3) as clients:

        def ask(array: Image8, priority: int) -> Any:
            answer = clients.submit(api.raw, array, priority=priority, max_energy_mj=1e6)
            admitted.append(len(array))
            until(lambda: metric(api, "delen_jobs") == sum(admitted), "they are admitted")
            return answer

        admitted: list[int] = []
        running = ask(images[:2], 5)
        last, first = ask(np.concatenate([images] * 5), 9), ask(images[:2], 1)
        gate.open()
        latencies = [
            [result["receipt"]["latency_ms"]["value"] for result in _ok(answer.result())["results"]]
            for answer in (first, last, running)
        ]
    assert max(latencies[0]) < min(latencies[1])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", 0),
        ("priority", 10),
        ("priority", 2.5),
        ("top_k", 0),
        ("top_k", 11),
        ("tenant", ""),
        ("tenant", "no spaces please"),
        ("stream", "x" * 65),
        ("on_infeasible", "perhaps"),
        ("probabilities", "yes"),
    ],
)
def test_an_option_outside_its_range_is_refused_by_name(
    api: Api, image: Image8, field: str, value: Any
) -> None:
    in_query = api.raw(image, **{field: value}).error(400, "invalid_input")
    in_body = api.as_json({"input": image.tolist(), field: value}).error(400, "invalid_input")
    assert in_query["field"] == in_body["field"] == field


def test_options_may_stand_in_the_query_of_a_json_request(api: Api, image: Image8) -> None:
    body = json.dumps({"input": image.tolist()}).encode()
    answer = api.post(
        "/v1/infer", body=body, content_type="application/json; charset=utf-8", query={"top_k": 4}
    )
    assert len(_ok(answer)["predictions"]) == 4


def test_a_client_that_waits_for_100_continue_is_served(daemon: Daemon, image: Image8) -> None:
    head = (
        "POST /v1/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        "Content-Length: 3072\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    with daemon.api.socket() as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 100")
        connection.sendall(image.tobytes())
        assert b" 200 OK" in connection.recv(65536)


def test_one_connection_serves_many_requests(daemon: Daemon, image: Image8) -> None:
    connection = daemon.api.connect()
    for number in range(20):
        wrong = number % 3 == 0
        body = image.tobytes()[: 100 if wrong else None]
        connection.request("POST", "/v1/infer", body, {"Content-Type": "application/octet-stream"})
        response = connection.getresponse()
        response.read()
        assert response.status == (400 if wrong else 200)
    connection.close()


def test_the_unix_socket_serves_the_same(daemon: Daemon, api: Api, image: Image8) -> None:
    over_unix = type(api)(str(daemon.unix_url))
    assert _ok(over_unix.raw(image))["predictions"] == _ok(api.raw(image))["predictions"]


@pytest.mark.parametrize("address", ["tcp", "unix"])
def test_a_client_that_only_ends_its_request_gets_its_answer_and_one_that_closes_none(
    gated: Gated, images: Image8, metric: Any, until: Any, address: str
) -> None:
    daemon, gate = gated.daemon, gated.gate
    api = type(daemon.api)(str(daemon.url if address == "tcp" else daemon.unix_url))
    gate.close()
    head = (
        "POST /v1/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        "Content-Length: 3072\r\nConnection: close\r\n\r\n"
    )
    connections = []
    for image in images[:3]:
        connection = api.connect()
        connection.connect()
        connection.sock.sendall(head.encode() + image.tobytes())
        connection.sock.shutdown(socket.SHUT_WR)
        connections.append(connection)
        until(lambda: metric(daemon.api, "delen_jobs") == len(connections), "it is admitted")
    connections[2].close()
    until(lambda: metric(daemon.api, "delen_jobs") == 2, "the job of who closed is given up")
    gate.open()
    for connection in connections[:2]:
        received = b"".join(iter(lambda: connection.sock.recv(65536), b""))  # noqa: B023
        assert received.startswith(b"HTTP/1.1 200 OK"), received[:300]
        assert json.loads(received.partition(b"\r\n\r\n")[2])["reason"] != "cancelled"
        connection.close()
