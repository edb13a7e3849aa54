"""``python -m benchmarks connections``: what idle and slow connections do to a working client.

One client sends raw images, one after the other, alone and beside 1,000 connections that send
nothing and 200 that send a byte of a head or of a body each second, in turn. Claimed is that its
99th percentile is at most 1.2 times as long beside them.
"""

from __future__ import annotations

import resource
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from benchmarks.common import Connection, Daemon, Figure, daemon, report

IDLE, SLOW = 1000, 200
REQUESTS = 1000
ROUNDS = 7
MOST = 1.2
PATH = "/v1/infer?max_latency_ms=60000"
_FILES = 4096
_HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: "
_BODY = (
    b"POST /v1/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Length: 3072\r\n\r\n"
)


def p99(server: Daemon) -> float:
    """Seconds, over ``REQUESTS`` of one client."""
    connection, taken = Connection(server.host, server.port), []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        connection.post_raw(PATH, bytes(3072))
        taken.append(time.perf_counter() - began)
    connection.close()
    return float(np.quantile(taken, 0.99))


@contextmanager
def others(server: Daemon) -> Iterator[None]:
    """Idle and slow connections; one that was closed for its slowness is opened again."""
    address, is_over = (server.host, server.port), threading.Event()

    def begin(number: int) -> socket.socket:
        client = socket.create_connection(address)
        client.sendall(_HEAD if number % 2 else _BODY)
        return client

    def drip() -> None:
        slow = [begin(number) for number in range(SLOW)]
        while not is_over.wait(1.0):
            for number, client in enumerate(slow):
                try:
                    client.sendall(b"a")
                except OSError:
                    client.close()
                    with suppress(OSError):
                        slow[number] = begin(number)
        for client in slow:
            client.close()

    with ExitStack() as opened:
        for _ in range(IDLE):
            opened.enter_context(socket.create_connection(address))
        dripping = threading.Thread(target=drip)
        dripping.start()
        time.sleep(1.0)
        try:
            yield
        finally:
            is_over.set()
            dripping.join()


def main() -> list[Figure]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, hard))
    alone, beside = [], []
    with tempfile.TemporaryDirectory() as state, daemon(Path(state)) as server:
        p99(server)
        for _ in range(ROUNDS):
            alone.append(1e3 * p99(server))
            with others(server):
                beside.append(1e3 * p99(server))
    ratios = tuple(late / early for late, early in zip(beside, alone, strict=True))
    return report(
        f"{IDLE} idle and {SLOW} slow connections beside a working client",
        [
            Figure("p99 alone", tuple(alone), "ms"),
            Figure("p99 beside them", tuple(beside), "ms"),
            Figure("times as long", ratios, "x", MOST),
        ],
    )


if __name__ == "__main__":
    main()
