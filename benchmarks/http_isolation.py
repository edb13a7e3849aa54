"""``python -m benchmarks http_isolation``: what clients that mean harm do to a camera, over HTTP.

The camera sends ten images a second, raw or as JPEG, with a cap on latency that the deepest exit
keeps four times over. Beside it come, under another tenant's name, clients that post again and
again: junk JSON of 1 MB, JSON and .npy bodies whose headers are bombs, images that are small to
send and long to decode, packed zeros, and as many raw requests as are taken. Claimed is that the
camera's violations (refused, late, or not answered) rise by at most one point over those of the
same round without them.
"""

from __future__ import annotations

import gzip
import http.client
import io
import json
import multiprocessing
import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import Daemon, Figure, daemon, report

RATE = 10.0
SECONDS = 8.0
ROUNDS = 3
CLIENTS = 4
TIMES_DEEPEST, SHORTEST_CAP = 4.0, 0.06
MOST = 1.0
"""Points by which violations may rise."""

Body = tuple[str, bytes, dict[str, str]]
"""Media type, bytes, further headers."""
RAW, JSON = "application/octet-stream", "application/json"


def attacks() -> dict[str, Body]:
    """What the clients post, by its name."""
    numbers = ",".join(["1.5"] * 250_000)
    digits = b"{'descr':'<u1','fortran_order':False,'shape':(" + b",".join([b"9" * 4300] * 200)
    npy = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(digits)) + digits
    strings = json.dumps({"input": ["a" * 10_000] + [""] * 50_000})
    return {
        "junk JSON of 1 MB": (JSON, f'{{"input": [[[{numbers}]]], "x": {{}}}}'.encode(), {}),
        "JSON of strings": (JSON, strings.encode(), {}),
        "a header of .npy": ("application/x-npy", npy, {}),
        "progressive JPEG": ("image/jpeg", _progressive(), {}),
        "PNG of 16 million pixels": ("image/png", _encoded(4000, "PNG"), {}),
        "packed zeros": (RAW, gzip.compress(bytes(31_000_000)), {"Content-Encoding": "gzip"}),
        "raw requests": (RAW, bytes(3072), {}),
        "batches of 200": (RAW, bytes(3072 * 200), {}),
    }


def _encoded(side: int, form: str, **how: bool) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, form, **how)
    return buffer.getvalue()


def _progressive() -> bytes:
    """As many scans as are let pass, of as many pixels."""
    whole = _encoded(4000, "JPEG", progressive=True)
    begin = whole.rindex(b"\xff\xda")
    return whole[:begin] + 2 * whole[begin:-2] + whole[begin:]


class Camera:
    """Sends images at ``RATE`` and counts those without a good answer in ``cap`` seconds."""

    def __init__(self, server: Daemon, media_type: str, body: bytes, cap: float) -> None:
        self._server = server
        self._headers = {"Content-Type": media_type}
        self._body = body
        self._cap = cap

    def violations(self) -> float:
        """Percent, over ``SECONDS``."""
        began, bad, sent = time.monotonic(), 0, int(RATE * SECONDS)
        path = f"/v1/infer?tenant=camera&max_latency_ms={1e3 * self._cap:g}"
        connection = http.client.HTTPConnection(self._server.host, self._server.port, timeout=30)
        for number in range(sent):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            due = time.monotonic() + self._cap
            try:
                connection.request("POST", path, self._body, self._headers)
                response = connection.getresponse()
                response.read()
                bad += response.status != 200 or time.monotonic() > due
            except (OSError, http.client.HTTPException):
                connection.close()
                bad += 1
        connection.close()
        return 100 * bad / sent


@contextmanager
def under_attack(server: Daemon, body: Body) -> Iterator[None]:
    """``CLIENTS`` post ``body`` in a loop, from a process that leaves the cores to all others: what
    is measured is what their requests take, and not their sending."""
    context = multiprocessing.get_context("spawn")
    attacker = context.Process(target=_attack, args=(server.host, server.port, body), daemon=True)
    attacker.start()
    time.sleep(1.0)
    try:
        yield
    finally:
        attacker.terminate()
        attacker.join()


def _attack(host: str, port: int, body: Body) -> None:
    os.nice(19)
    threads = [threading.Thread(target=_post, args=(host, port, body)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()


def _post(host: str, port: int, body: Body) -> None:
    media_type, content, more = body
    headers = {"Content-Type": media_type, **more}
    connection = http.client.HTTPConnection(host, port, timeout=30)
    while True:
        try:
            connection.request("POST", "/v1/infer?tenant=flood", content, headers)
            response = connection.getresponse()
            response.read()
            if response.status == 503:
                time.sleep(0.01)
        except (OSError, http.client.HTTPException):
            connection.close()


def cap_of(server: Daemon, media_type: str, body: bytes) -> float:
    """``TIMES_DEEPEST`` the median seconds of an answer to the deepest exit, and at least
    ``SHORTEST_CAP``."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        path = "/v1/infer?max_latency_ms=60000"
        connection.request("POST", path, body, {"Content-Type": media_type})
        connection.getresponse().read()
        taken.append(time.perf_counter() - began)
    connection.close()
    return max(SHORTEST_CAP, TIMES_DEEPEST * float(np.median(taken)))


def main() -> list[Figure]:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    picture = io.BytesIO()
    Image.fromarray(noise).save(picture, "JPEG")
    cameras = {"raw": (RAW, noise[:32, :32].tobytes()), "JPEG": ("image/jpeg", picture.getvalue())}
    figures = []
    with tempfile.TemporaryDirectory() as state, daemon(Path(state)) as server:
        for kind, (media_type, body) in cameras.items():
            cap = cap_of(server, media_type, body)
            camera = Camera(server, media_type, body, cap)
            title = f"{kind} camera, cap {1e3 * cap:.3g} ms"
            alone: list[float] = []
            rises: dict[str, list[float]] = {name: [] for name in attacks()}
            for _ in range(ROUNDS):
                alone.append(camera.violations())
                for name, attack in attacks().items():
                    with under_attack(server, attack):
                        rises[name].append(camera.violations() - alone[-1])
            figures.append(Figure(f"{title}: alone", tuple(alone), "%"))
            figures += [
                Figure(f"{title}: {name}", tuple(rise), "points", MOST)
                for name, rise in rises.items()
            ]
    return report("Isolation over HTTP: rise of a camera's violations", figures)


if __name__ == "__main__":
    main()
