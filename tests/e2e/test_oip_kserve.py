"""KServe's inference client. It is no part of the test extra, as it brings 400 MB with it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.builders.daemon import Daemon, Launcher

kserve = pytest.importorskip("kserve", reason="pip install kserve, in an environment of its own")
MODEL = "cifar10-resnet"


def asked(images: NDArray[np.uint8], binary: bool, **parameters: object) -> kserve.InferRequest:
    given = kserve.InferInput("input", [*images.shape], "UINT8")
    given.set_data_from_numpy(images, binary_data=binary)
    return kserve.InferRequest(MODEL, [given], request_id="mine", parameters=parameters)


@pytest.mark.parametrize("binary", [True, False])
async def test_the_rest_client_is_answered(
    daemon: Daemon, images: NDArray[np.uint8], binary: bool
) -> None:
    client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2"))
    assert await client.is_server_live(daemon.url)
    assert await client.is_server_ready(daemon.url)
    assert await client.is_model_ready(daemon.url, MODEL)
    request = asked(images[:2], binary, max_latency_ms=60_000.0)
    answer = await client.infer(daemon.url, request, model_name=MODEL)
    assert answer.id == "mine"
    assert answer.parameters["bounds_met"] is True
    assert answer.outputs[0].as_numpy().shape == (2, 10)
    await client.close()


async def test_the_grpc_client_is_answered(launcher: Launcher, images: NDArray[np.uint8]) -> None:
    daemon = launcher.start({"server": {"grpc_port": 0}})
    assert daemon.grpc_url is not None
    client = kserve.InferenceGRPCClient(daemon.grpc_url.removeprefix("grpc://"))
    assert await client.is_server_live()
    assert await client.is_model_ready(MODEL)
    for binary in (True, False):
        answer = await client.infer(asked(images[:2], binary, min_accuracy="0.8"))
        assert answer.outputs[0].as_numpy().shape == (2, 10)
    await client.close()
    launcher.stop(daemon)
