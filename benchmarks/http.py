"""A raw image over HTTP against the same engine in process, and against its backend alone."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Connection, Daemon, Figure, bodies, daemon, report, test_images
from delen.bundle.manifest import load_bundle
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.daemon.config import config_of
from delen.daemon.in_process import Engine
from delen.engine.backends.onnx import OnnxBackend

DEEPEST = "/v1/infer?max_latency_ms=60000"
ROUNDS = 11
REQUESTS = 300
CONNECTIONS = 8
LOAD_SECONDS = 2.0


def latency(server: Daemon, engine: Engine, images: np.ndarray) -> tuple[float, float]:
    """The median seconds of an answer over HTTP and in process, to the deepest exit."""
    connection = Connection(server.host, server.port)
    over_http = [_seconds(connection.post_raw, DEEPEST, body) for body in bodies(images)]
    connection.close()
    in_process = [_seconds(engine.infer, image, max_latency=60.0) for image in images]
    return float(np.median(over_http)), float(np.median(in_process))


def _seconds(call: Callable[..., Any], *arguments: Any, **named: Any) -> float:
    began = time.perf_counter()
    call(*arguments, **named)
    return time.perf_counter() - began


def throughput(server: Daemon, requests: Sequence[bytes]) -> float:
    """Answers a second over ``CONNECTIONS`` connections, each waiting for its answers."""
    counts = [0] * CONNECTIONS
    end = time.perf_counter() + LOAD_SECONDS

    def load(index: int) -> None:
        connection = Connection(server.host, server.port)
        while time.perf_counter() < end:
            connection.post(DEEPEST, requests[counts[index] % len(requests)])
            counts[index] += 1
        connection.close()

    threads = [threading.Thread(target=load, args=(index,)) for index in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / LOAD_SECONDS


def backend_alone(batch: int) -> float:
    """Images a second that the backend does when nothing but its segments runs."""
    bundle = load_bundle(SHIPPED_BUNDLES / "cifar10-resnet")
    network = OnnxBackend("auto", config_of({})["device.threads"]).load(bundle)
    samples = list(np.random.default_rng(0).integers(0, 256, (batch, 32, 32, 3), np.uint8))
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < LOAD_SECONDS:
        features = samples
        for segment in range(len(bundle.exits)):
            features = network.run(segment, features).features
        done += batch
    return done / (time.perf_counter() - began)


def main() -> list[Figure]:
    images = test_images(REQUESTS).inputs
    added, served_ms, direct_ms, ratio, batched_ratio, rates = [], [], [], [], [], []
    with tempfile.TemporaryDirectory() as state, daemon(Path(state)) as server:
        with Engine(state=state) as engine:
            latency(server, engine, images)
            for _ in range(ROUNDS):
                served, direct = latency(server, engine, images)
                served_ms.append(1e3 * served)
                direct_ms.append(1e3 * direct)
                added.append(1e3 * (served - direct))
        throughput(server, bodies(images))
        for _ in range(ROUNDS):
            rate = throughput(server, bodies(images))
            rates.append(rate)
            ratio.append(rate / backend_alone(1))
            batched_ratio.append(rate / backend_alone(CONNECTIONS))
    return report(
        "HTTP against in process: a raw 3,072-byte image, to the deepest exit",
        [
            Figure("p50 in process, Engine.infer", tuple(direct_ms), "ms"),
            Figure("p50 over HTTP, 1 connection", tuple(served_ms), "ms"),
            Figure("p50 that HTTP adds", tuple(added), "ms", 0.6),
            Figure(f"answers a second, {CONNECTIONS} connections", tuple(rates), "/s"),
            Figure("of the backend alone, one image at a time", tuple(ratio), "x", 0.7, False),
            Figure(
                f"of the backend alone, batches of {CONNECTIONS}",
                tuple(batched_ratio),
                "x",
                0.7,
                False,
            ),
        ],
    )


if __name__ == "__main__":
    main()
