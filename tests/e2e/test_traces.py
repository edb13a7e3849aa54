"""Spans of a real daemon at a collector."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.builders.daemon import wait_until

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tests.builders.daemon import Launcher

trace_service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="traces are of delen[otel]"
)


class Collector:
    """Keeps the spans that are sent to it."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        keep = self._keep

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                keep(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _keep(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        for each in trace_service.ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = each.resource.attributes
            self.resources.append({one.key: one.value.string_value for one in attributes})
            self.spans += [span for scope in each.scope_spans for span in scope.spans]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


def test_a_request_is_a_span_over_those_of_its_segments(
    launcher: Launcher, collector: Collector, images: NDArray[np.uint8]
) -> None:
    daemon = launcher.start({"traces": {"endpoint": collector.url}})
    answer = daemon.api.raw(images[0], tenant="cam", max_latency_ms=5000, top_k=1).json()
    wait_until(lambda: len(collector.spans) >= 2 + answer["exit"], "the spans")
    (request,) = (span for span in collector.spans if not span.parent_span_id)
    segments = [span for span in collector.spans if span.parent_span_id]
    assert request.name == "infer cifar10-resnet"
    assert request.trace_id.hex().endswith(answer["request_id"])
    assert [span.name for span in sorted(segments, key=lambda span: span.start_time_unix_nano)] == [
        f"segment {number} of cifar10-resnet" for number in range(answer["exit"] + 1)
    ]
    assert {span.trace_id for span in segments} == {request.trace_id}
    assert {span.parent_span_id for span in segments} == {request.span_id}
    slack = 1_000_000
    for span in segments:
        assert request.start_time_unix_nano - slack <= span.start_time_unix_nano
        assert span.start_time_unix_nano < span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano + slack
    attributes = {each.key: each.value for each in request.attributes}
    assert attributes["delen.tenant"].string_value == "cam"
    assert attributes["delen.max_latency_ms"].double_value == 5000
    assert collector.resources[0]["service.name"] == "delen"
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log()
