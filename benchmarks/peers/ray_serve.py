"""Ray Serve hands the raw body to the deployment."""

from __future__ import annotations

import struct

from benchmarks.peers.load import Request
from benchmarks.peers.peer import Peer

SCRIPT = """\
import os
import signal

import numpy as np
import ray
from ray import serve
from starlette.responses import Response

from network import image_of, open_network


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Classifier:
    def __init__(self):
        self.logits = open_network(os.environ["NETWORK"])

    @serve.batch(max_batch_size=int(os.environ["MAX_BATCH"]), batch_wait_timeout_s=0.0)
    async def classify(self, bodies):
        logits = self.logits(np.stack([image_of(body) for body in bodies]))
        return [row.tobytes() for row in logits]

    async def __call__(self, request):
        logits = await self.classify(await request.body())
        return Response(logits, media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(
        num_cpus=1, include_dashboard=False, object_store_memory=10**8, _temp_dir=os.getcwd()
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Classifier.bind(), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
"""


def request(image: bytes) -> Request:
    return Request("/", image, ("Content-Type: application/octet-stream",))


RAY_SERVE = Peer(
    name="Ray Serve",
    requirements=("ray[serve]==2.60.0",),
    setting="raw bytes, serve.batch without waiting",
    script=SCRIPT,
    command=("python", "server.py"),
    request=request,
    logits=lambda body: struct.unpack("<10f", body),
    variables={"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
)
