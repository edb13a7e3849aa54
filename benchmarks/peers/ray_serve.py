"""Ray Serve hands the raw body to the deployment. With its settings for throughput the replica
listens by itself (direct ingress), which is far faster than its proxy, here on the next port."""

from __future__ import annotations

import struct

from benchmarks.peers.load import Request
from benchmarks.peers.peer import MAX_BATCH, Peer

SCRIPT = """\
import os
import signal

import numpy as np
import ray
from ray import serve
from starlette.responses import Response

from network import image_of, open_network

MAX_BATCH = int(os.environ["MAX_BATCH"])


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Classifier:
    def __init__(self):
        self.logits = open_network(os.environ["NETWORK"])

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.0)
    async def classify(self, bodies):
        logits = self.logits(np.stack([image_of(body) for body in bodies]))
        return [row.tobytes() for row in logits]

    async def __call__(self, request):
        body = await request.body()
        if MAX_BATCH > 1:
            logits = await self.classify(body)
        else:
            logits = self.logits(image_of(body)[None]).tobytes()
        return Response(logits, media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(
        num_cpus=1, include_dashboard=False, object_store_memory=10**8, _temp_dir=os.getcwd()
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"]) + 1})
    serve.run(Classifier.bind(), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
"""


def request(image: bytes) -> Request:
    return Request("/", image, ("Content-Type: application/octet-stream",))


def _ray_serve(name: str, setting: str, max_batch: int) -> Peer:
    return Peer(
        name=name,
        requirements=("ray[serve]==2.60.0",),
        setting=f"raw bytes straight to the replica, {setting}",
        script=SCRIPT,
        command=("python", "server.py"),
        request=request,
        logits=lambda body: struct.unpack("<10f", body),
        variables={
            "MAX_BATCH": str(max_batch),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": "{port}",
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": "65535",
        },
    )


RAY_SERVE = (
    _ray_serve("Ray Serve", "no batching", 1),
    _ray_serve("Ray Serve, batches", "serve.batch without waiting", MAX_BATCH),
)
