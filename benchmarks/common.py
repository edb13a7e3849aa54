"""What the benchmarks share: a daemon, a thin HTTP connection, medians and spreads."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.state import wait_measured
from multiexit_models.data import cifar
from multiexit_models.data.dataset import Labelled

DATA_VARIABLE = "DELEN_TEST_DATA"
_DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
_START_SECONDS = 60


@dataclass(frozen=True)
class Figure:
    """A figure from several rounds. ``limit`` is the claim on its median."""

    name: str
    values: tuple[float, ...]
    unit: str
    limit: float | None = None
    at_most: bool = True

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    @property
    def holds(self) -> bool | None:
        if self.limit is None:
            return None
        return self.median <= self.limit if self.at_most else self.median >= self.limit

    def line(self) -> str:
        low, high = np.quantile(self.values, (0.25, 0.75))
        text = f"{self.name:<58} {self.median:>9.4g} {self.unit:<6} [{low:.4g} .. {high:.4g}]"
        if self.limit is None:
            return text
        sign = "<=" if self.at_most else ">="
        return f"{text}  {sign} {self.limit:g}: {'ok' if self.holds else 'MISSED'}"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "median": self.median,
            "quartiles": np.quantile(self.values, (0.25, 0.75)).tolist(),
            "rounds": len(self.values),
            "unit": self.unit,
            "limit": self.limit,
            "holds": self.holds,
        }


def data_folder() -> Path:
    """Where the public data are, or would be."""
    return Path(os.environ.get(DATA_VARIABLE, _DEFAULT_DATA))


def find_test_images(count: int) -> Labelled | None:
    """``count`` of CIFAR-10's test images, chosen once, or None where the data are absent."""
    folder = data_folder()
    for path in (folder / "images" / "cifar10_32.zip", folder / "cifar-10-batches-bin"):
        if path.exists():
            images = cifar.load(path, "test")
            order = np.random.default_rng(0).permutation(len(images))
            return images.take(np.sort(order[:count]))
    return None


def test_images(count: int) -> Labelled:
    """``find_test_images``; exits where there are none."""
    images = find_test_images(count)
    if images is None:
        sys.exit(f"no CIFAR-10 under {data_folder()}; say where it is with {DATA_VARIABLE}")
    return images


@dataclass(frozen=True)
class Daemon:
    """A running daemon: its process and where it listens."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    log: Path
    seconds_to_ready: float


@contextmanager
def daemon(state: Path, **settings: str) -> Iterator[Daemon]:
    """A daemon on a free port that has measured profiles, under ``state``; ``settings`` as
    environment names."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        environment = {
            **os.environ,
            "DELEN_SERVER__PORT": "0",
            "DELEN_SERVER__SOCKET": "",
            "DELEN_STATE__PATH": str(state),
            **settings,
        }
        began = time.perf_counter()
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name("delen-daemon"))],
                env=environment,
                stderr=stderr,
            )
        try:
            port = _port_of(process, log)
            ready = time.perf_counter() - began
            wait_measured(f"http://127.0.0.1:{port}")
            yield Daemon(process, "127.0.0.1", port, log, ready)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _port_of(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if match := re.search(r"ready on http://[^:]+:(\d+)", log.read_text()):
            return int(match[1])
        if process.poll() is not None:
            break
        time.sleep(0.002)
    raise RuntimeError(f"the daemon did not start:\n{log.read_text()}")


class Connection:
    """One kept-alive HTTP connection that costs the client next to nothing."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, body: bytes) -> dict[str, Any]:
        """The JSON answer to a raw tensor. RuntimeError unless the status is 200."""
        answer: dict[str, Any] = json.loads(self.post_raw(path, body))
        return answer

    def try_post(self, path: str, body: bytes) -> dict[str, Any] | None:
        """As ``post``, but None when the daemon refuses the bounds or is too busy to keep them."""
        status, answer = self._exchange(path, body)
        if status in (422, 503):
            return None
        if status != 200:
            raise RuntimeError(answer.decode())
        document: dict[str, Any] = json.loads(answer)
        return document

    def post_raw(self, path: str, body: bytes) -> bytes:
        """The body of the answer, as it came."""
        status, answer = self._exchange(path, body)
        if status != 200:
            raise RuntimeError(answer.decode())
        return answer

    def _exchange(self, path: str, body: bytes) -> tuple[int, bytes]:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: delen\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        headers, _, rest = received.partition(b"\r\n\r\n")
        match = re.search(rb"content-length: (\d+)", headers.lower())
        if match is None:
            raise RuntimeError(f"an answer without a length: {headers!r}")
        while len(rest) < int(match[1]):
            rest += self._receive()
        return int(headers[9:12]), rest

    def _receive(self) -> bytes:
        chunk = self._socket.recv(65536)
        if not chunk:
            raise RuntimeError("the daemon closed the connection")
        return chunk

    def close(self) -> None:
        self._socket.close()


def report(title: str, figures: Sequence[Figure]) -> list[Figure]:
    """Print ``figures`` under ``title`` and return them."""
    print(f"\n{title}")
    for figure in figures:
        print(figure.line(), flush=True)
    return list(figures)


def bodies(images: NDArray[np.uint8]) -> list[bytes]:
    """Each image as the raw tensor that ``POST .../infer`` takes."""
    return [image.tobytes() for image in images]
