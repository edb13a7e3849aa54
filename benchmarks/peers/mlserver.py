"""MLServer's HTTP is the Open Inference Protocol in JSON; its base64 codec is the smallest input.
The network runs in the server's own process, which its documentation calls parallel_workers 0."""

from __future__ import annotations

import json
from base64 import b64encode

import msgspec

from benchmarks.peers.load import Request
from benchmarks.peers.peer import MAX_BATCH, Peer

SCRIPT = """\
import os

import numpy as np
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceResponse

from network import image_of, open_network


class Classifier(MLModel):
    async def load(self):
        self.logits = open_network(os.environ["NETWORK"])
        return True

    async def predict(self, payload):
        images = [image_of(image) for image in Base64Codec.decode_input(payload.inputs[0])]
        output = NumpyCodec.encode_output("logits", self.logits(np.stack(images)))
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
SERVER = {"debug": False, "parallel_workers": 0, "metrics_endpoint": None, "gzip_enabled": False}


def request(image: bytes) -> Request:
    given = {
        "name": "image",
        "shape": [1, 1],
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [b64encode(image).decode()],
    }
    body = msgspec.json.encode({"inputs": [given]})
    return Request("/v2/models/network/infer", body, ("Content-Type: application/json",))


def _mlserver(name: str, setting: str, **batching: float) -> Peer:
    model = {"name": "network", "implementation": "server.Classifier", **batching}
    return Peer(
        name=name,
        requirements=("mlserver==1.7.1",),
        setting=f"base64 in JSON, in process, {setting}",
        script=SCRIPT,
        command=("mlserver", "start", "."),
        request=request,
        logits=lambda body: msgspec.json.decode(body)["outputs"][0]["data"],
        variables={"MLSERVER_HTTP_PORT": "{port}", "MLSERVER_GRPC_PORT": "0"},
        files={"model-settings.json": json.dumps(model), "settings.json": json.dumps(SERVER)},
    )


MLSERVER = (
    _mlserver("MLServer", "no batching"),
    _mlserver(
        "MLServer, batches",
        "adaptive batching within 1 ms",
        max_batch_size=MAX_BATCH,
        max_batch_time=0.001,
    ),
)
