"""KServe's model server takes binary tensors. Its batcher is a sidecar of Kubernetes, so that the
server by itself runs one request after the other."""

from __future__ import annotations

import struct

import msgspec

from benchmarks.peers.load import Request
from benchmarks.peers.peer import Peer

SCRIPT = """\
import os

import kserve
from kserve.utils.utils import get_predict_response

from network import open_network


class Classifier(kserve.Model):
    def load(self):
        self.logits = open_network(os.environ["NETWORK"])
        self.ready = True
        return True

    async def predict(self, payload, headers=None, response_headers=None):
        logits = self.logits(payload.inputs[0].as_numpy())
        return get_predict_response(payload, logits, self.name)


if __name__ == "__main__":
    model = Classifier("network")
    model.load()
    server = kserve.ModelServer(
        http_port=int(os.environ["PORT"]),
        workers=1,
        enable_grpc=False,
        enable_latency_logging=False,
    )
    server.start([model])
"""


def request(image: bytes) -> Request:
    given = {
        "name": "input",
        "shape": [1, 32, 32, 3],
        "datatype": "UINT8",
        "parameters": {"binary_data_size": len(image)},
    }
    document = {"inputs": [given], "parameters": {"binary_data_output": True}}
    head = msgspec.json.encode(document)
    headers = (
        "Content-Type: application/octet-stream",
        f"Inference-Header-Content-Length: {len(head)}",
    )
    return Request("/v2/models/network/infer", head + image, headers)


KSERVE = Peer(
    name="KServe",
    requirements=("kserve==0.21.0",),
    setting="binary tensors, no batching",
    script=SCRIPT,
    command=("python", "server.py"),
    request=request,
    logits=lambda body: struct.unpack("<10f", body[-40:]),
)
