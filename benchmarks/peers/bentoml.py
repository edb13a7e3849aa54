"""BentoML takes tensors as JSON or as files; base64 in JSON is the smallest that it can batch."""

from __future__ import annotations

from base64 import b64encode

import msgspec

from benchmarks.peers.load import Request
from benchmarks.peers.peer import Peer

SCRIPT = """\
import os
from base64 import b64decode

import bentoml
import numpy as np

from network import image_of, open_network


@bentoml.service(
    workers=1,
    threads=1,
    traffic={"timeout": 60},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Classifier:
    def __init__(self):
        self.logits = open_network(os.environ["NETWORK"])

    @bentoml.api(batchable=True, max_batch_size=int(os.environ["MAX_BATCH"]), max_latency_ms=60000)
    async def classify(self, images: list[str]) -> list[list[float]]:
        return self.logits(np.stack([image_of(b64decode(image)) for image in images])).tolist()
"""


def request(image: bytes) -> Request:
    body = msgspec.json.encode({"images": [b64encode(image).decode()]})
    return Request("/classify", body, ("Content-Type: application/json",))


BENTOML = Peer(
    name="BentoML",
    requirements=("bentoml==1.4.40",),
    setting="base64 in JSON, adaptive batching",
    script=SCRIPT,
    command=("bentoml", "serve", "server:Classifier", "--host", "127.0.0.1", "--port", "{port}"),
    request=request,
    logits=lambda body: msgspec.json.decode(body)[0],
    variables={"BENTOML_DO_NOT_TRACK": "True"},
)
