"""Batches that are larger than what may wait."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

import delen

if TYPE_CHECKING:
    from pathlib import Path

    from tests.builders.daemon import Daemon, Launcher

Image8 = NDArray[np.uint8]
MANY = 1000


@pytest.fixture(scope="module")
def small(launcher: Launcher) -> Iterator[Daemon]:
    """A daemon where few samples may wait."""
    daemon = launcher.start({"server": {"max_backlog_seconds": 0.05}})
    yield daemon
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


@pytest.fixture(scope="module")
def many(images: Image8) -> Image8:
    return np.concatenate([images] * (MANY // len(images)))


def test_a_batch_is_answered_whole_and_others_are_answered_meanwhile(
    small: Daemon, images: Image8, many: Image8, metric: Any, until: Any
) -> None:
    api = small.api
    with ThreadPoolExecutor(1) as client:
        asked = client.submit(api.raw, many, tenant="bulk", max_energy_mj=1e6)
        until(lambda: metric(api, "delen_jobs") > 0, "the batch is admitted")
        others = 0
        while not asked.done():
            assert api.raw(images[others % len(images)], tenant="camera").status == 200
            others += 1
        answer = asked.result()
    assert answer.status == 200, answer.body
    results = answer.json()["results"]
    assert len(results) == len({result["request_id"] for result in results}) == MANY
    assert others > 5
    alone = [api.raw(image, max_energy_mj=1e6).json() for image in images]
    tops = [result["predictions"][0]["index"] for result in results]
    assert tops == [each["predictions"][0]["index"] for each in alone] * (MANY // len(images))


def test_a_batch_that_can_never_be_in_time_names_the_size_that_can(
    small: Daemon, images: Image8, many: Image8
) -> None:
    cap = 20 * small.api.plan(max_latency_ms=60_000)["pareto"][0]["latency_ms"]
    refused = small.api.raw(many, max_latency_ms=cap)
    largest = refused.error(413, "batch_too_large")["largest"]
    assert 1 < largest < MANY
    assert "Retry-After" not in refused.headers
    answer = small.api.raw(many[:largest], max_latency_ms=cap)
    # what a busy machine takes longer for is told with its answers, or when they cannot be in time
    assert answer.status == 200 or answer.error(503, "overloaded"), answer.body


def test_a_client_that_leaves_ends_its_whole_batch(
    small: Daemon, many: Image8, metric: Any, until: Any
) -> None:
    times = 4  # takes long enough for a busy machine to see it under way
    body, before = times * many.tobytes(), metric(small.api, "delen_answers_total")
    with small.api.socket() as connection:
        connection.sendall(
            b"POST /v1/infer?max_energy_mj=1e6 HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: application/octet-stream\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        until(lambda: metric(small.api, "delen_jobs") > 0, "it is admitted")
        connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: metric(small.api, "delen_jobs") == 0, "no job is left")
    assert metric(small.api, "delen_answers_total") - before < times * MANY


def test_an_engine_cancels_the_rest_once_one_sample_fails(
    state: Path, many: Image8, monkeypatch: pytest.MonkeyPatch
) -> None:
    with delen.Engine(state=state) as engine:
        runtime = engine._opened.runtime
        network = runtime.store.ready(engine._name).network
        ran, lock = [0], threading.Lock()
        run = type(network).run

        def fail_later(self: Any, segment: int, samples: Any, lane: int = 0) -> Any:
            with lock:
                ran[0] += len(samples) if segment == 0 else 0
                if ran[0] > 100:
                    raise RuntimeError("broken")
            return run(self, segment, samples, lane)

        monkeypatch.setattr(type(network), "run", fail_later)
        with pytest.raises(delen.DelenError, match="broken"):
            engine.infer(many)
        assert runtime.drain(60.0)
        assert ran[0] < MANY // 2
