"""LitServe reads JSON or forms, so an image is base64 in JSON. Its fast queue is ZeroMQ."""

from __future__ import annotations

from base64 import b64encode

import msgspec

from benchmarks.peers.load import Request
from benchmarks.peers.peer import Peer

SCRIPT = """\
import os
from base64 import b64decode

import litserve
import numpy as np

from network import image_of, open_network


class Classifier(litserve.LitAPI):
    def setup(self, device):
        self.logits = open_network(os.environ["NETWORK"])

    def decode_request(self, request):
        return image_of(b64decode(request["image"]))

    def predict(self, images):
        return self.logits(images)

    def encode_response(self, output):
        return {"logits": output.tolist()}


if __name__ == "__main__":
    api = Classifier(max_batch_size=int(os.environ["MAX_BATCH"]), batch_timeout=0.0)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=1, fast_queue=True, disable_openapi_url=True
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
"""


def request(image: bytes) -> Request:
    body = msgspec.json.encode({"image": b64encode(image).decode()})
    return Request("/predict", body, ("Content-Type: application/json",))


LITSERVE = Peer(
    name="LitServe",
    requirements=("litserve==0.2.19",),
    setting="base64 in JSON, fast queue, batches without waiting",
    script=SCRIPT,
    command=("python", "server.py"),
    request=request,
    logits=lambda body: msgspec.json.decode(body)["logits"],
)
