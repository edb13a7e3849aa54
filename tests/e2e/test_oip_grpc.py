"""The Open Inference Protocol over gRPC: Triton's own client, and what it would not send."""

from __future__ import annotations

import json
import queue
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.http as triton_http
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.builders.daemon import Api, Daemon, Launcher

MODEL = "cifar10-resnet"


@pytest.fixture(scope="module")
def served(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("secret")
    server = {"grpc_port": 0, "max_body_mb": 1.0, "token_file": str(token)}
    daemon = launcher.start({"server": server})
    yield daemon
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


@pytest.fixture(scope="module")
def address(served: Daemon) -> str:
    assert served.grpc_url is not None
    return served.grpc_url.removeprefix("grpc://")


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client


@pytest.fixture(scope="module")
def stub(address: str) -> Iterator[Any]:
    """The service without a client's checks."""
    with grpc.insecure_channel(address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def tensor(images: NDArray[np.uint8]) -> triton.InferInput:
    return triton.InferInput("input", [*images.shape], "UINT8").set_data_from_numpy(images)


def asked(images: NDArray[np.uint8], **changes: Any) -> Any:
    """A request, its input in raw_input_contents."""
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="input", datatype="UINT8", shape=images.shape)
    request.raw_input_contents.append(images.tobytes())
    return service_pb2.ModelInferRequest.FromString(
        request.SerializeToString() + service_pb2.ModelInferRequest(**changes).SerializeToString()
    )


def refusal(call: Callable[[], object]) -> InferenceServerException:
    with pytest.raises(InferenceServerException) as caught:
        call()
    assert caught.value.message()
    return caught.value


def test_the_service_says_the_same_as_http(
    client: triton.InferenceServerClient, served: Daemon
) -> None:
    http = triton_http.InferenceServerClient(served.url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready(MODEL, "2")
    assert client.get_server_metadata(as_json=True) == http.get_server_metadata()

    def numbers(described: Any) -> Any:
        """As gRPC's JSON has 64-bit numbers."""
        return json.loads(json.dumps(described), parse_int=str)

    model = client.get_model_metadata(MODEL, as_json=True)
    assert numbers(model) == numbers(http.get_model_metadata(MODEL))
    config = client.get_model_config(MODEL, as_json=True)["config"]
    assert config["max_batch_size"] == 32
    assert config["backend"] == "delen"
    assert config["input"][0]["data_type"] == "TYPE_UINT8"
    index = client.get_model_repository_index(as_json=True)["models"]
    assert [each["name"] for each in index] == [
        each["name"] for each in http.get_model_repository_index()
    ]


def test_an_input_is_answered_with_its_receipt(
    client: triton.InferenceServerClient, served: Daemon, images: NDArray[np.uint8]
) -> None:
    result = client.infer(
        MODEL,
        [tensor(images[:3])],
        request_id="mine",
        priority=2,
        timeout=60_000_000,
        parameters={"min_accuracy": 0.85, "tenant": "rpc", "max_latency_ms": 90_000},
    )
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("mine", MODEL, "1")
    receipt = response.parameters
    assert receipt["bounds_met"].bool_param is True
    assert 0 <= receipt["exit"].int64_param < 5
    assert receipt["latency_ms"].double_param > 0
    assert receipt["energy_kind"].string_param == "estimated"
    first = receipt["request_id"].string_param.split(",")[0]
    assert served.api.get(f"/v1/requests/{first}").json()["tenant"] == "rpc"
    logits = result.as_numpy("logits")
    assert logits.shape == (3, 10)
    for row, image in zip(logits, images, strict=False):
        native = served.api.raw(image, min_accuracy=0.85, probabilities="true").json()
        powers = np.exp(row - row.max())
        assert powers / powers.sum() == pytest.approx(native["probabilities"], abs=1e-3)
    assert result.as_numpy("classification").shape == (3, 1)


def test_classes_are_counted(
    client: triton.InferenceServerClient, images: NDArray[np.uint8]
) -> None:
    wanted = triton.InferRequestedOutput("logits", class_count=2)
    classes = client.infer(MODEL, [tensor(images[:2])], outputs=[wanted]).as_numpy("logits")
    assert classes.shape == (2, 2)
    assert all(text.count(b":") == 2 for text in classes.ravel())


def test_typed_contents_are_an_input_too(stub: Any, images: NDArray[np.uint8]) -> None:
    raw = stub.ModelInfer(asked(images[:2]))
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    given = request.inputs.add(name="input", datatype="UINT8", shape=images[:2].shape)
    given.contents.uint_contents.extend(images[:2].ravel().tolist())
    typed = stub.ModelInfer(request)
    assert np.frombuffer(typed.raw_output_contents[0], np.float32) == pytest.approx(
        np.frombuffer(raw.raw_output_contents[0], np.float32), abs=1e-3
    )
    given.contents.uint_contents[0] = 256
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_asynchronous_client_is_answered(address: str, images: NDArray[np.uint8]) -> None:
    async with triton_aio.InferenceServerClient(address) as client:
        assert await client.is_model_ready(MODEL)
        result = await client.infer(MODEL, [tensor(images[:2])])
        assert result.as_numpy("logits").shape == (2, 10)


def test_a_stream_answers_each_request_and_survives_a_wrong_one(
    client: triton.InferenceServerClient, images: NDArray[np.uint8]
) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer(MODEL, [tensor(images[:1])], request_id="1")
    client.async_stream_infer("nowhere", [tensor(images[:1])], request_id="2")
    client.async_stream_infer(MODEL, [tensor(images[:2])], request_id="3")
    ended = [answers.get(timeout=60) for _ in range(3)]
    client.stop_stream()
    right = {result.get_response().id: result for result, error in ended if error is None}
    assert right.keys() == {"1", "3"}
    assert right["3"].as_numpy("logits").shape == (2, 10)
    [wrong] = [error for _, error in ended if error is not None]
    assert "nowhere" in wrong.message()


def test_statistics_count(client: triton.InferenceServerClient, images: NDArray[np.uint8]) -> None:
    before = client.get_inference_statistics(MODEL).model_stats[0]
    client.infer(MODEL, [tensor(images[:2])])
    after = client.get_inference_statistics(MODEL).model_stats[0]
    assert after.inference_count == before.inference_count + 2
    assert after.inference_stats.success.ns > before.inference_stats.success.ns


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ({"model_name": "nowhere"}, "NOT_FOUND"),
        ({"model_version": "2"}, "NOT_FOUND"),
        ({"timeout": 1}, "FAILED_PRECONDITION"),
        ({"priority": 10}, "INVALID_ARGUMENT"),
        ({"parameters": {"max_latancy_ms": 3}}, "INVALID_ARGUMENT"),
        ({"sequence_id": 3}, "UNIMPLEMENTED"),
    ],
)
def test_a_refusal_has_a_status_and_a_sentence(
    client: triton.InferenceServerClient,
    images: NDArray[np.uint8],
    call: dict[str, Any],
    status: str,
) -> None:
    arguments = {"model_name": MODEL, "inputs": [tensor(images[:1])], **call}
    assert refusal(lambda: client.infer(**arguments)).status() == f"StatusCode.{status}"


def test_a_refusal_has_what_http_says_of_it_in_its_metadata(
    stub: Any, images: NDArray[np.uint8]
) -> None:
    request = asked(images[:1])
    request.parameters["max_latency_ms"].double_param = 0.01
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    document = json.loads(dict(caught.value.trailing_metadata())["delen-error-bin"])
    assert document["code"] == "infeasible_bound"
    assert document["nearest"]["max_latency_ms"] > 0.01


def test_a_tensor_that_is_not_the_models_is_refused(stub: Any, images: NDArray[np.uint8]) -> None:
    sample = images[:1]
    shape = lambda *sizes: [{"name": "input", "datatype": "UINT8", "shape": sizes}]  # noqa: E731
    wrong = [
        asked(sample, raw_input_contents=[b"1"]),
        asked(sample, inputs=shape(1, 32, 32, 3)),
        service_pb2.ModelInferRequest(model_name=MODEL, raw_input_contents=[b"1"]),
        *(
            service_pb2.ModelInferRequest(
                model_name=MODEL, inputs=shape(*sizes), raw_input_contents=[sample.tobytes()]
            )
            for sizes in ((2, 32, 32, 3), (-1, 32, 32, 3), (0, 32, 32, 3), (2**62, 32, 32, 3), ())
        ),
        service_pb2.ModelInferRequest(model_name=MODEL, inputs=shape(1, 32, 32, 3)),
    ]
    for request in wrong:
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()


def test_a_message_beyond_the_limit_is_refused(stub: Any, images: NDArray[np.uint8]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(asked(np.concatenate([images] * 10)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_loading_is_guarded(client: triton.InferenceServerClient) -> None:
    assert refusal(lambda: client.unload_model(MODEL)).status() == "StatusCode.UNAUTHENTICATED"
    wrong = {"authorization": "Bearer guessed"}
    refused = refusal(lambda: client.load_model(MODEL, headers=wrong))
    assert refused.status() == "StatusCode.PERMISSION_DENIED"
    right = {"authorization": "Bearer secret"}
    client.load_model(MODEL, headers=right)
    changed = refusal(lambda: client.load_model(MODEL, headers=right, config="{}"))
    assert changed.status() == "StatusCode.UNIMPLEMENTED"


def test_shared_memory_is_offered_only_where_the_configuration_says_so(
    client: triton.InferenceServerClient,
) -> None:
    refused = refusal(lambda: client.register_system_shared_memory("r", "/nothing", 1))
    assert refused.status() == "StatusCode.PERMISSION_DENIED"
    assert "system_shared_memory" not in client.get_server_metadata().extensions


def test_what_is_not_offered_is_unimplemented(client: triton.InferenceServerClient) -> None:
    for call in (
        client.get_cuda_shared_memory_status,
        client.get_log_settings,
        client.get_trace_settings,
    ):
        assert refusal(call).status() == "StatusCode.UNIMPLEMENTED"


def test_bytes_that_are_no_message_end_the_call_alone(
    address: str, client: triton.InferenceServerClient
) -> None:
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff" * 100)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert client.is_server_live()


def test_a_caller_that_leaves_ends_its_jobs_and_one_that_waits_is_answered_before_the_end(
    launcher: Launcher, gate: Any, images: NDArray[np.uint8], metric: Any, until: Any
) -> None:
    daemon = launcher.start({"server": {"grpc_port": 0}, "policies": gate.policies})
    assert daemon.grpc_url is not None
    gate.close()
    with grpc.insecure_channel(daemon.grpc_url.removeprefix("grpc://")) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        requests: queue.Queue[Any] = queue.Queue()
        stream = stub.ModelStreamInfer(iter(requests.get, None))
        requests.put(asked(images[:1], id="first"))
        until(lambda: metric(daemon.api, "delen_jobs") == 1, "it waits at the gate")
        requests.put(asked(images[:1], id="second", model_version="2"))
        assert next(stream).infer_response.id == "second", "a stream waits for no answer"
        gate.open()
        assert next(stream).infer_response.id == "first"
        requests.put(None)
        gate.close()
        calls = []
        for image in images[:2]:
            calls.append(stub.ModelInfer.future(asked(image[None])))
            until(lambda: metric(daemon.api, "delen_jobs") == len(calls), "it is admitted")
        calls[1].cancel()
        until(lambda: metric(daemon.api, "delen_jobs") == 1, "the job of who left is given up")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for_log("draining")
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(asked(images[:1]))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        gate.open()
        assert calls[0].result().model_name == MODEL
    assert daemon.process.wait(60) == 0


def test_many_callers_are_answered(address: str, images: NDArray[np.uint8]) -> None:
    def ask(index: int) -> int:
        with triton.InferenceServerClient(address) as client:
            result = client.infer(MODEL, [tensor(images[index : index + 1])])
            return len(result.as_numpy("logits"))

    with ThreadPoolExecutor(8) as callers:
        assert [*callers.map(ask, range(16))] == [1] * 16


def test_a_port_that_was_asked_for_must_be_free(launcher: Launcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        refused = launcher.refused({"server": {"grpc_port": other.getsockname()[1]}})
    assert refused.returncode == 2
    assert "gRPC" in refused.stderr


def test_no_port_is_opened_where_it_is_off(api: Api, daemon: Daemon) -> None:
    assert daemon.grpc_url is None
