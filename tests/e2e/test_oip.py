"""The Open Inference Protocol over HTTP: Triton's own client, and what it would not send."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.builders.daemon import Answer, Api, Daemon

MODEL = "cifar10-resnet"
INFER = f"/v2/models/{MODEL}/infer"
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "oip.md").read_text(encoding="utf-8")
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(daemon.url.removeprefix("http://"))
    yield client
    client.close()


def tensor(images: NDArray[np.uint8], binary: bool = True) -> triton.InferInput:
    given = triton.InferInput("input", [*images.shape], "UINT8")
    return given.set_data_from_numpy(images, binary_data=binary)


def described(images: NDArray[Any], **changes: Any) -> dict[str, Any]:
    return {"name": "input", "datatype": "UINT8", "shape": [*images.shape], **changes}


def send(api: Api, head: dict[str, Any], binary: bytes, length: int | None = None) -> Answer:
    """An infer request with bytes after its JSON."""
    document = json.dumps(head).encode()
    headers = {LENGTH: str(len(document) if length is None else length)}
    return api.post(INFER, body=document + binary, headers=headers)


def refusal(call: Callable[[], object]) -> InferenceServerException:
    with pytest.raises(InferenceServerException) as caught:
        call()
    assert caught.value.message()
    return caught.value


def test_the_example_of_the_page_runs(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    block = PAGE.split("```python\n")[1].split("```")[0]
    exec(block.replace("localhost:8000", daemon.url.removeprefix("http://")), {})
    assert "bounds_met" in capsys.readouterr().out


def test_the_server_and_its_models_describe_themselves(
    client: triton.InferenceServerClient,
) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    server = client.get_server_metadata()
    assert server["name"] == "delen"
    assert {"binary_tensor_data", "classification", "statistics"} <= {*server["extensions"]}
    model = client.get_model_metadata(MODEL, "1")
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "input", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert model["outputs"][0] == {"name": "logits", "datatype": "FP32", "shape": [-1, 10]}
    config = client.get_model_config(MODEL)
    assert (config["name"], config["max_batch_size"]) == (MODEL, 32)
    assert config["input"] == [{"name": "input", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]}]
    assert config["dynamic_batching"]["priority_levels"] == 9


def test_health_is_said_in_json_too(api: Api) -> None:
    """KServe's client reads the body."""
    assert api.get("/v2/health/live").json() == {"live": True}
    assert api.get("/v2/health/ready").json() == {"ready": True}
    assert api.get(f"/v2/models/{MODEL}/ready").json() == {"name": MODEL, "ready": True}
    assert api.get("/v2/models/nowhere/ready").status == 400


@pytest.mark.parametrize(
    ("model", "version", "is_ready"),
    [(MODEL, "", True), (MODEL, "1", True), (MODEL, "2", False), ("nowhere", "", False)],
)
def test_a_model_is_ready_by_its_version(
    client: triton.InferenceServerClient, model: str, version: str, is_ready: bool
) -> None:
    assert client.is_model_ready(model, version) is is_ready


def test_a_version_that_is_not_there_is_not_found(
    client: triton.InferenceServerClient, images: NDArray[np.uint8]
) -> None:
    for call in (
        lambda: client.get_model_metadata(MODEL, "2"),
        lambda: client.get_inference_statistics(MODEL, "2"),
        lambda: client.infer(MODEL, [tensor(images[:1])], model_version="2"),
        lambda: client.get_model_config("nowhere"),
    ):
        assert refusal(call).status() == "404"


@pytest.mark.parametrize("binary", [True, False])
def test_logits_are_those_behind_the_probabilities_of_v1(
    client: triton.InferenceServerClient, api: Api, images: NDArray[np.uint8], binary: bool
) -> None:
    result = client.infer(MODEL, [tensor(images[:4], binary)], parameters={"min_accuracy": 0.85})
    logits = result.as_numpy("logits")
    assert logits.dtype == np.float32
    assert logits.shape == (4, 10)
    for row, image in zip(logits, images, strict=False):
        native = api.raw(image, probabilities="true", min_accuracy=0.85).json()
        powers = np.exp(row - row.max())
        assert powers / powers.sum() == pytest.approx(native["probabilities"], abs=1e-3)
    classes = result.as_numpy("classification")
    assert [text.split(b":")[1] for text in classes[:, 0]] == [
        str(row.argmax()).encode() for row in logits
    ]


def test_the_receipt_is_in_the_parameters(
    client: triton.InferenceServerClient, api: Api, images: NDArray[np.uint8]
) -> None:
    result = client.infer(
        MODEL,
        [tensor(images[:1])],
        request_id="mine",
        parameters={"max_latency_ms": 60_000, "min_accuracy": 0.8, "tenant": "oip", "stream": "s"},
    ).get_response()
    assert (result["id"], result["model_name"], result["model_version"]) == ("mine", MODEL, "1")
    receipt = result["parameters"]
    assert receipt["bounds_met"] is True
    assert receipt["reason"] in ("confident", "planned_exit", "final")
    assert 0 <= receipt["exit"] < receipt["exits"] == 5
    assert 0 <= receipt["queue_ms"] <= receipt["latency_ms"]
    assert receipt["energy_kind"] == "estimated"
    assert receipt["energy_mj"] > 0
    assert receipt["energy_source"] == "model"
    assert 0.5 < receipt["accuracy"] <= 1
    past = api.get(f"/v1/requests/{receipt['request_id']}").json()
    assert (past["tenant"], past["exit"]) == ("oip", receipt["exit"])


def test_a_batch_is_one_job_group_whose_receipts_can_be_asked_for(
    client: triton.InferenceServerClient, api: Api, images: NDArray[np.uint8]
) -> None:
    result = client.infer(MODEL, [tensor(images[:3])]).get_response()
    receipt = result["parameters"]
    past = [api.get(f"/v1/requests/{id}").json() for id in receipt["request_id"].split(",")]
    assert len(past) == 3
    assert receipt["exit"] == max(each["exit"] for each in past)


def test_a_timeout_is_a_cap_on_latency_that_covers_execution(
    client: triton.InferenceServerClient, images: NDArray[np.uint8]
) -> None:
    refused = refusal(lambda: client.infer(MODEL, [tensor(images[:1])], timeout=10))
    assert refused.status() == "422"
    assert "max_latency" in refused.message()
    either = {"max_latency_ms": 0.01}
    call = lambda: client.infer(MODEL, [tensor(images[:1])], timeout=10**9, parameters=either)  # noqa: E731
    assert refusal(call).status() == "422"
    best = client.infer(
        MODEL, [tensor(images[:1])], timeout=10, parameters={"on_infeasible": "best_effort"}
    ).get_response()
    assert best["parameters"]["bounds_met"] is False


def test_numbers_may_come_as_texts(
    client: triton.InferenceServerClient, images: NDArray[np.uint8]
) -> None:
    """KServe's client has no fractions over gRPC."""
    texts = {"min_accuracy": "0.8", "top_k": "2", "tenant": "7"}
    result = client.infer(MODEL, [tensor(images[:1])], parameters=texts)
    assert result.as_numpy("classification").shape == (1, 2)
    wrong = {"min_accuracy": "high"}
    assert (
        refusal(lambda: client.infer(MODEL, [tensor(images[:1])], parameters=wrong)).status()
        == "400"
    )


def test_a_priority_is_one_of_delens(
    client: triton.InferenceServerClient, images: NDArray[np.uint8]
) -> None:
    client.infer(MODEL, [tensor(images[:1])], priority=9)
    refused = refusal(lambda: client.infer(MODEL, [tensor(images[:1])], priority=10))
    assert refused.status() == "400"
    assert "priority" in refused.message()


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", ["logits", "classification"])
def test_classes_come_as_value_index_and_label(
    client: triton.InferenceServerClient, images: NDArray[np.uint8], binary: bool, name: str
) -> None:
    wanted = triton.InferRequestedOutput(name, binary_data=binary, class_count=3)
    result = client.infer(MODEL, [tensor(images[:2])], outputs=[wanted])
    assert [each["name"] for each in result.get_response()["outputs"]] == [name]
    classes = result.as_numpy(name)
    assert classes.shape == (2, 3)
    for row in classes:
        texts = [text.decode() if isinstance(text, bytes) else text for text in row]
        values = [float(text.split(":")[0]) for text in texts]
        assert values == sorted(values, reverse=True)
        assert all(text.split(":")[2].isalpha() for text in texts)
    few = client.infer(MODEL, [tensor(images[:1])], parameters={"top_k": 4})
    assert few.as_numpy("classification").shape == (1, 4)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_bodies_are_packed_both_ways(
    client: triton.InferenceServerClient, images: NDArray[np.uint8], coding: str, binary: bool
) -> None:
    wanted = [triton.InferRequestedOutput("logits", binary_data=binary)]
    plain = client.infer(MODEL, [tensor(images[:2], binary)], outputs=wanted)
    packed = client.infer(
        MODEL,
        [tensor(images[:2], binary)],
        outputs=wanted,
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    assert packed.as_numpy("logits") == pytest.approx(plain.as_numpy("logits"), abs=1e-3)


def test_an_answer_says_how_it_is_packed(api: Api, images: NDArray[np.uint8]) -> None:
    head = {"inputs": [described(images[:1], data=images[0].ravel().tolist())]}
    body = zlib.compress(json.dumps(head).encode())
    for accepted, unpack in (("gzip", gzip.decompress), ("deflate", zlib.decompress)):
        headers = {"Content-Encoding": "deflate", "Accept-Encoding": accepted}
        answer = api.post(INFER, body=body, headers=headers)
        assert answer.headers["Content-Encoding"] == accepted
        assert json.loads(unpack(answer.body))["model_name"] == MODEL
    assert api.post(INFER, body=body, headers={"Content-Encoding": "deflate"}).status == 200
    refused = api.post(INFER, body=body, headers={"Content-Encoding": "br"})
    refused.error(501, "not_offered")
    assert refused.headers["Accept-Encoding"] == "gzip, deflate"


def test_a_body_may_be_the_bare_tensor(api: Api, images: NDArray[np.uint8]) -> None:
    answer = api.post(INFER, body=images[:2].tobytes(), headers={LENGTH: "0"})
    assert answer.status == 200
    length = int(answer.headers[LENGTH])
    head = json.loads(answer.body[:length])
    assert head["outputs"][0]["shape"] == [2, 10]
    assert sum(each["parameters"]["binary_data_size"] for each in head["outputs"]) == len(
        answer.body[length:]
    )


def test_nested_data_are_data(api: Api, images: NDArray[np.uint8]) -> None:
    flat = {"inputs": [described(images[:2], data=images[:2].ravel().tolist())]}
    nested = {"inputs": [described(images[:2], data=images[:2].tolist())]}
    one, other = (api.as_json(each, INFER).json() for each in (flat, nested))
    assert one["outputs"][0]["data"] == pytest.approx(other["outputs"][0]["data"], abs=1e-3)


def test_batches_beyond_the_models_own_and_large_bodies_are_answered(
    client: triton.InferenceServerClient, images: NDArray[np.uint8]
) -> None:
    many = np.concatenate([images[:40], images[:10]])
    result = client.infer(MODEL, [tensor(many)], parameters={"max_latency_ms": 60_000})
    assert result.as_numpy("logits").shape == (50, 10)


async def test_the_asynchronous_client_is_answered(
    daemon: Daemon, images: NDArray[np.uint8]
) -> None:
    async with triton_aio.InferenceServerClient(daemon.url.removeprefix("http://")) as client:
        assert await client.is_server_live()
        assert (await client.get_model_metadata(MODEL))["name"] == MODEL
        result = await client.infer(MODEL, [tensor(images[:2])], request_id="1")
        assert result.as_numpy("logits").shape == (2, 10)
        assert result.get_response()["id"] == "1"
        with pytest.raises(InferenceServerException):
            await client.infer(MODEL, [tensor(images[:1])], timeout=1)


def test_statistics_count_what_was_answered_and_refused(
    client: triton.InferenceServerClient, images: NDArray[np.uint8]
) -> None:
    def stats() -> Any:
        return client.get_inference_statistics(MODEL)["model_stats"][0]

    before = stats()
    client.infer(MODEL, [tensor(images[:3])])
    refusal(lambda: client.infer(MODEL, [tensor(images[:1])], timeout=1))
    after = stats()
    assert after["inference_count"] == before["inference_count"] + 3
    assert after["execution_count"] > before["execution_count"]
    assert after["last_inference"] > before["last_inference"]
    counts = after["inference_stats"]
    assert counts["success"]["count"] == before["inference_stats"]["success"]["count"] + 3
    assert counts["fail"]["count"] == before["inference_stats"]["fail"]["count"] + 1
    assert counts["success"]["ns"] >= counts["queue"]["ns"] + counts["compute_infer"]["ns"] - 1
    assert any(each["compute_infer"]["ns"] > 0 for each in after["batch_stats"])
    everything = client.get_inference_statistics()["model_stats"]
    assert MODEL in {each["name"] for each in everything}


def test_models_are_listed_loaded_and_unloaded(client: triton.InferenceServerClient) -> None:
    def state(model: str) -> str:
        return str(
            {each["name"]: each for each in client.get_model_repository_index()}[model]["state"]
        )

    assert state(MODEL) == "READY"
    assert state("second") == "UNAVAILABLE"
    client.load_model("second")
    assert state("second") == "READY"
    assert client.is_model_ready("second")
    client.unload_model("second")
    assert not client.is_model_ready("second")
    assert refusal(lambda: client.load_model("nowhere")).status() == "404"
    changed = refusal(lambda: client.load_model("second", config='{"max_batch_size": 1}'))
    assert changed.status() == "501"


@pytest.mark.parametrize("address", ["index", "models/tiny/load", "models/tiny/unload"])
def test_the_repository_refuses_unknown_fields(api: Api, address: str) -> None:
    api.post(f"/v2/repository/{address}", body=b'{"redy": true}').error(400, "invalid_input")


def test_a_model_is_unloaded_as_it_is(api: Api) -> None:
    address, body = f"/v2/repository/models/{MODEL}/unload", b'{"parameters": {"later": true}}'
    api.post(address, body=body).error(501, "not_offered")


def test_the_index_may_list_ready_models_only(api: Api) -> None:
    listed = api.post("/v2/repository/index", body=b'{"ready": true}').json()
    assert {each["state"] for each in listed} == {"READY"}


def test_what_is_not_offered_is_refused_with_a_sentence(
    client: triton.InferenceServerClient, api: Api, images: NDArray[np.uint8]
) -> None:
    for call in (
        client.get_cuda_shared_memory_status,
        client.get_log_settings,
        client.get_trace_settings,
        lambda: client.infer(MODEL, [tensor(images[:1])], sequence_id=7),
    ):
        assert refusal(call).status() == "501"
    api.post(f"/v2/models/{MODEL}/generate", body=b"{}").error(501, "not_offered")


@pytest.mark.parametrize(
    ("head", "field"),
    [
        ({}, None),
        ({"inputs": []}, "inputs"),
        ({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 32, 32, 3]}]}, "inputs"),
        ({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 32, 32, 3]}]}, "input"),
        ({"inputs": [{"name": "input", "datatype": "UINT8", "shape": [32, 32, 3]}]}, "input"),
        ({"inputs": [{"name": "input", "datatype": "UINT8", "shape": [0, 32, 32, 3]}]}, "input"),
        ({"inputs": [{"name": "input", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]}, None),
        (
            {"inputs": [{"name": "input", "datatype": "UINT8", "shape": [2**62, 32, 32, 3]}]},
            "input",
        ),
        ({"inputs": [{"name": "input", "datatype": "UINT8", "shape": []}]}, "input"),
    ],
)
def test_an_input_that_is_not_the_models_is_refused(
    api: Api, head: dict[str, Any], field: str | None
) -> None:
    assert api.as_json(head, INFER).error(400, "invalid_input").get("field") == field


def test_data_that_do_not_fill_the_shape_are_refused(api: Api, images: NDArray[np.uint8]) -> None:
    values = images[0].ravel().tolist()
    for data in (values[:-1], [*values, 1], [256, *values[1:]], ["1", *values[1:]], [values], "x"):
        answer = api.as_json({"inputs": [described(images[:1], data=data)]}, INFER)
        answer.error(400, "invalid_input")


def test_bytes_that_do_not_fill_the_shape_are_refused(api: Api, images: NDArray[np.uint8]) -> None:
    raw = images[0].tobytes()

    def head(size: int, **more: Any) -> dict[str, Any]:
        return {"inputs": [described(images[:1], parameters={"binary_data_size": size}, **more)]}

    assert send(api, head(len(raw)), raw).status == 200
    for size, body in ((len(raw), raw[:-1]), (len(raw), raw + b"1"), (10, raw), (2**70, raw)):
        send(api, head(size), body).error(400, "invalid_input")
    send(api, head(len(raw) - 1), raw[:-1]).error(400, "invalid_input")
    send(api, head(len(raw), data=[1]), raw).error(400, "invalid_input")
    send(api, {"inputs": [described(images[:1])]}, raw).error(400, "invalid_input")


@pytest.mark.parametrize("length", ["-1", "1e3", "", "10000000", "9" * 40, "0x10"])
def test_a_wrong_length_of_the_json_is_refused(api: Api, length: str) -> None:
    answer = api.post(INFER, body=struct.pack("<100Q", *range(100)), headers={LENGTH: length})
    answer.error(400, "invalid_input")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"outputs": [{"name": "probabilities"}]}, "invalid_input"),
        ({"outputs": [{"name": "logits"}, {"name": "logits"}]}, "invalid_input"),
        ({"outputs": [{"name": "logits", "parameters": {"classification": 0}}]}, "invalid_input"),
        ({"outputs": [{"name": "logits", "parameters": {"clas": 1}}]}, "invalid_input"),
        ({"parameters": {"max_latancy_ms": 3}}, "unknown_field"),
        ({"parameters": {"min_accuracy": 2}}, "invalid_input"),
        ({"parameters": {"timeout": -1}}, "invalid_input"),
        ({"parameters": {"timeout": "soon"}}, "invalid_input"),
        ({"parameters": {"tenant": [1]}}, "invalid_input"),
        ({"id": 7}, "invalid_input"),
        ({"max_latency_ms": 3}, "invalid_input"),
        ({"outputs": [{"name": "logits", "datatype": "FP64"}]}, "invalid_input"),
    ],
)
def test_a_wrong_request_is_refused(
    api: Api, images: NDArray[np.uint8], changes: dict[str, Any], code: str
) -> None:
    head = {"inputs": [described(images[:1], data=images[0].ravel().tolist())]}
    api.as_json({**head, **changes}, INFER).error(400, code)


def test_json_is_refused_by_its_size_before_it_is_read(api: Api) -> None:
    strings = b'{"inputs": [' + b'"a",' * 50_000 + b'"a"]}'
    api.post(INFER, body=strings).error(400, "invalid_input")
    api.post(INFER, body=b"[" * 200_000).error(400, "invalid_input")
    api.post(INFER, body=b"\xff" * 100).error(400, "invalid_input")


def test_a_packed_body_is_read_up_to_the_limit(api: Api, images: NDArray[np.uint8]) -> None:
    packed = {"Content-Encoding": "gzip"}
    bomb = gzip.compress(bytes(20_000_000))
    api.post(INFER, body=bomb, headers=packed).error(413, "too_large")
    api.post(INFER, body=bomb, headers={**packed, LENGTH: "10"}).error(413, "too_large")
    whole = gzip.compress(json.dumps({"inputs": []}).encode())
    api.post(INFER, body=whole[:-4], headers=packed).error(400, "invalid_input")


def test_methods_and_addresses_are_checked(api: Api) -> None:
    api.get(INFER).error(405, "method_not_allowed")
    api.post("/v2/health/live").error(405, "method_not_allowed")
    api.get("/v2/nothing").error(404, "not_found")
    api.post(INFER, body=b"{}", query={"max_latency_ms": 5}).error(400, "unknown_field")


def test_other_bodies_of_v1_may_be_deflated_too(api: Api, images: NDArray[np.uint8]) -> None:
    body = zlib.compress(json.dumps({"input": images[0].tolist()}).encode())
    headers = {"Content-Encoding": "deflate", "Content-Type": "application/json"}
    assert api.post("/v1/infer", body=body, headers=headers).status == 200
