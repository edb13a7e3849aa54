"""A node of a fleet as its hub sees it: an HTTP server that says what a test has it say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "cifar"
POINTS = ((0, 0.6, 5.0), (1, 0.7, 10.0), (2, 0.8, 20.0))
"""Exit, accuracy, and milliseconds of one."""


def standing(name: str = "node", bundle: str = "sha256:a", **changes: Any) -> dict[str, Any]:
    """What a daemon of one model answers to ``GET /v1/standing``."""
    points = [
        {
            "exit": exit,
            "size": None,
            "accuracy": accuracy,
            "latencies_ms": [latency, 1.5 * latency],
            "payload_bytes": 3000.0,
            "energy_mj": None,
        }
        for exit, accuracy, latency in POINTS
    ]
    model = {"name": MODEL, "bundle": bundle, "resident": True, "load_ms": 0.0, "points": points}
    said = {
        "node": name,
        "time": 4e9,
        "models": [model],
        "backlog_ms": 0.0,
        "slowdown": 1.0,
        "utilisation": 0.1,
        "price": 0.0,
        "price_per_joule": 0.0,
        "links": {},
    }
    return {**said, **changes}


class FakeNode:
    """Answers ``body`` with ``status`` to whoever asks for its standing, after ``wait`` is set.
    ``told`` are the directives that came, ``tokens`` what authorised them."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.status = 200
        self.body = json.dumps(standing()).encode()
        self.refusal = b""
        self.wait = threading.Event()
        self.wait.set()
        self.told: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []

    def say(self, **changes: Any) -> None:
        self.body = json.dumps(standing(**changes)).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Who asked has left."""


@contextmanager
def fake_node(port: int = 0) -> Iterator[FakeNode]:
    """A node until the end of the block, when its connections are closed, too."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            node.wait.wait(30)
            self._answer(node.status, node.body)

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            node.told.append(json.loads(body))
            node.tokens.append(self.headers["Authorization"])
            self._answer(400 if node.refusal else 200, node.refusal or b"{}")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = is_closing.is_set()

        def log_message(self, *_: object) -> None:
            pass

    is_closing = threading.Event()
    server = _Server(("127.0.0.1", port), Handler)
    node = FakeNode(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield node
    finally:
        is_closing.set()
        node.wait.set()
        server.shutdown()
        thread.join()
        server.server_close()
