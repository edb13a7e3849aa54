"""A hub and nodes in this process: real HTTP servers whose answers a test decides."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

MODEL = "cifar10-resnet"
Reply = tuple[int, Any]
"""A status and a JSON document, or bytes. Status 0 breaks the connection off."""


class Asked(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """Answers each request as ``reply`` does, and keeps what was asked."""

    def __init__(self, reply: Callable[[Asked], Reply]) -> None:
        self.reply = reply
        self.asked: list[Asked] = []
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._server = self._listen(0)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def restart(self) -> None:
        """Listen at the same port again."""
        self._server = self._listen(self.port)

    def kill(self) -> None:
        """Listen no more, and reset every connection, as the kernel does for a killed process."""
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait_asked(self, times: int) -> list[Asked]:
        """What was asked, once that is so much."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.asked) >= times, 20.0), self.asked
            return list(self.asked)

    def _listen(self, port: int) -> ThreadingHTTPServer:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                fake._open.add(self.connection)

            def finish(self) -> None:
                fake._open.discard(self.connection)
                with suppress(OSError):
                    super().finish()

            def handle_any(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = Asked(self.command, parts.path, dict(parse_qsl(parts.query)), body)
                with fake._changed:
                    fake.asked.append(asked)
                    fake._changed.notify_all()
                status, document = fake.reply(asked)
                self.close_connection = not status
                if status:
                    whole = document if isinstance(document, bytes) else json.dumps(document)
                    raw = whole if isinstance(whole, bytes) else whole.encode()
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(raw)))
                    self.end_headers()
                    with suppress(OSError):
                        self.wfile.write(raw)

            def log_message(self, format: str, *args: Any) -> None: ...

        for method in ("GET", "POST", "PUT"):
            setattr(Handler, f"do_{method}", Handler.handle_any)
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server


class FakeNode(Server):
    """A daemon whose answers' request ids begin with its name."""

    def __init__(self, name: str) -> None:
        super().__init__(lambda asked: (200, self.answer(asked)))
        self.name = name
        self._answers = 0

    @property
    def inferred(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.path.endswith("/infer")]

    def answer(self, asked: Asked) -> dict[str, Any]:
        if not asked.path.endswith("/infer"):
            request_id = asked.path.rpartition("/")[2]
            return {"models": []} if asked.path == "/v1/models" else settled(request_id)
        self._answers += 1
        return result(f"{self.name}-{self._answers}")


class FakeHub(Server):
    """Routes to the first of its nodes whose link carries something."""

    def __init__(self, *nodes: FakeNode) -> None:
        super().__init__(self.answer)
        self.nodes = list(nodes)
        self.lease = 60.0
        self.more: dict[str, Any] = {}

    @property
    def routed(self) -> list[Any]:
        """What it was asked to route."""
        return [each.json() for each in self.asked if each.path == "/v1/route"]

    @property
    def hub_url(self) -> str:
        return f"hub://127.0.0.1:{self.port}"

    def answer(self, asked: Asked) -> Reply:
        return (200, self.describe()) if asked.path == "/v1/nodes" else self.route(asked)

    def describe(self) -> dict[str, Any]:
        """Its nodes, as ``GET /v1/nodes`` has them."""
        said = {"state": "up", "age_s": 0.1, "problem": None, "models": [MODEL]}
        figures = {"backlog_ms": 0.0, "slowdown": 1.0, "utilisation": 0.0}
        nodes = [{"name": node.name, "url": node.url} for node in self.nodes]
        return {"nodes": [{**node, **said, **figures} for node in nodes]}

    def route(self, asked: Asked) -> Reply:
        links, deadline = asked.json().get("links", {}), asked.json()["deadline_ms"]
        for node in self.nodes:
            if links.get(node.name, {}).get("bandwidth_mbps") == 0:
                continue
            return 200, {
                "node": node.name,
                "url": node.url,
                "lease_s": self.lease,
                "max_latency_ms": 0.9 * deadline,
                "ceiling": {"exit": 3, "size": None},
                "expected_ms": 5.0,
                "rate_fps": None,
                **self.more,
            }
        return 503, {"error": "no node can answer it", "code": "no_route", "retry_after_s": 1.0}


def result(request_id: str, latency_ms: float = 2.0, queue_ms: float = 0.5) -> dict[str, Any]:
    """An infer answer as a daemon gives it."""
    return {
        "model": MODEL,
        "version": "1",
        "request_id": request_id,
        "tenant": "default",
        "stream": None,
        "predictions": [{"index": 3, "label": "cat", "probability": 0.9}],
        "exit": 1,
        "exits": 5,
        "reason": "confident",
        "receipt": _receipt(latency_ms, queue_ms),
    }


def settled(request_id: str) -> dict[str, Any]:
    """What a daemon knows of a request later."""
    return {
        "request_id": request_id,
        "model": MODEL,
        "tenant": "default",
        "exit": 1,
        "reason": "confident",
        "settled": True,
        "receipt": _receipt(2.0, 0.5),
    }


def _receipt(latency_ms: float, queue_ms: float) -> dict[str, Any]:
    return {
        "met": True,
        "latency_ms": {
            "bound": None,
            "value": latency_ms,
            "queue": queue_ms,
            "predicted": latency_ms,
            "met": None,
        },
        "accuracy": {
            "bound": None,
            "expected": 0.9,
            "overall": 0.9,
            "guarantee": None,
            "met": None,
        },
        "energy_mj": {
            "bound": None,
            "value": 3.0,
            "predicted": 3.0,
            "kind": "estimated",
            "source": None,
            "scope": None,
            "met": None,
        },
    }
