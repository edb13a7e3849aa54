"""Traces for OpenTelemetry: a span for each request, and below it one for each segment it ran."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from delen.core.failures import FailureCounter
from delen.core.result import Result
from delen.core.variant import model_of
from delen.core.work import Work
from delen.daemon.config import Config
from delen.engine.observer import Observer
from delen.errors import ConfigError, MissingExtra
from delen.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

log = logging.getLogger("delen.traces")

_MOST_WAITING = 10_000
_AT_ONCE = 512
_EVERY = 0.2
_TIMEOUT = 2.0
"""Seconds."""

_Noted = tuple[Result | Work, float, float]
"""What happened, and what two clocks said then: ``time.monotonic`` and ``time.time``."""


def check_traces(config: Config) -> None:
    """ConfigError unless ``traces.endpoint`` is a URL or empty, MissingExtra where it is one and
    there is no OpenTelemetry."""
    endpoint = config["traces.endpoint"]
    if not endpoint:
        return
    if not re.fullmatch(r"https?://[^/?#]+(/[^?#]*)?", endpoint):
        raise ConfigError(f"traces.endpoint {endpoint!r} must be a URL as http://127.0.0.1:4318")
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("opentelemetry-sdk (for traces.endpoint)", "otel") from error


def open_traces(config: Config, observer: Observer, node: str) -> Traces | None:
    """What traces beside ``observer``; None without ``traces.endpoint``. Raises as
    ``check_traces``."""
    check_traces(config)
    endpoint = config["traces.endpoint"]
    return Traces(observer, endpoint, config["traces.share"], node) if endpoint else None


class Traces:
    """An Observer that tells ``observer`` everything, and sends spans of a ``share`` of all
    requests to the collector at ``endpoint``, on a thread of its own.

    A trace's number ends with the request's id, and the request's span has that id as its own: so
    the spans of segments, which are reported by themselves, know where they belong.
    """

    def __init__(self, observer: Observer, endpoint: str, share: float, node: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # failures are counted here
        self._observer = observer
        self._endpoint = f"{endpoint.rstrip('/')}/v1/traces"
        self._below = int(share * 16**8)
        self._exporter: Any = OTLPSpanExporter(self._endpoint, timeout=_TIMEOUT)
        own = {"service.name": "delen", "service.version": VERSION, "service.instance.id": node}
        self._resource = Resource.create(own)
        self._run = int.from_bytes(os.urandom(8), "big") << 64
        self._noted: deque[_Noted] = deque(maxlen=_MOST_WAITING)
        self._failures = FailureCounter("traces", log)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_always, name="traces", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send what is left, if that takes no longer than a time-out."""
        self._stop.set()
        self._thread.join(2 * _TIMEOUT)
        self._exporter.shutdown()

    def answered(self, result: Result) -> None:
        self._observer.answered(result)
        if self._is_traced(result.request_id):
            self._note(result)

    def ran(self, work: Work) -> None:
        self._observer.ran(work)
        if any(self._is_traced(share.request_id) for share in work.shares):
            self._note(work)

    def segment_failed(self, model: str, segment: int) -> None:
        self._observer.segment_failed(model, segment)

    def policy_failed(self, model: str) -> None:
        self._observer.policy_failed(model)

    def dispatch_failed(self, times: int) -> None:
        self._observer.dispatch_failed(times)

    def audited(self, model: str, agreed: bool) -> None:
        self._observer.audited(model, agreed)

    def _is_traced(self, request_id: str) -> bool:
        """Request ids are random, so their beginning decides."""
        return int(request_id[:8], 16) < self._below

    def _note(self, what: Result | Work) -> None:
        if len(self._noted) == _MOST_WAITING:
            overflow = OverflowError(f"{_MOST_WAITING} wait to be sent")
            self._failures.failed(overflow, "spans are lost; others are sent as they come")
        self._noted.append((what, time.monotonic(), time.time()))

    def _send_always(self) -> None:
        while not self._stop.wait(_EVERY):
            self._send()
        self._send()

    def _send(self) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        while self._noted:
            try:
                result = self._exporter.export(self._take())
                if result is not SpanExportResult.SUCCESS:
                    raise ConnectionError(f"{self._endpoint} took no spans")
            except Exception as error:
                self._failures.failed(error, "spans are lost; others are sent as they come")
                return

    def _take(self) -> list[ReadableSpan]:
        spans: list[ReadableSpan] = []
        while self._noted and len(spans) < _AT_ONCE:
            what, monotonic, wall = self._noted.popleft()
            if isinstance(what, Result):
                spans.append(self._of_request(what, wall))
            else:
                spans += self._of_segment(what, wall - monotonic)
        return spans

    def _of_request(self, result: Result, wall: float) -> ReadableSpan:
        receipt = result.receipt
        latency, energy, accuracy = receipt.latency, receipt.energy, receipt.accuracy
        about = {
            "delen.model": result.model,
            "delen.tenant": result.tenant,
            "delen.stream": result.stream,
            "delen.exit": result.exit,
            "delen.reason": result.reason,
            "delen.bounds_met": receipt.met,
            "delen.queue_ms": 1e3 * latency.queue,
            "delen.max_latency_ms": None if latency.bound is None else 1e3 * latency.bound,
            "delen.min_accuracy": accuracy.bound,
            "delen.max_energy_mj": None if energy.bound is None else 1e3 * energy.bound,
        }
        name, began = f"infer {result.model}", wall - latency.value
        own = int(result.request_id, 16)
        return self._span(name, result.request_id, own, None, began, wall, about)

    def _of_segment(self, work: Work, offset: float) -> Iterator[ReadableSpan]:
        """A span for each request that is traced; a batch has several."""
        model = model_of(work.model)
        about = {
            "delen.model": model,
            "delen.segment": work.segment,
            "delen.batch": work.batch,
            "delen.predicted_mj": None if work.joules is None else 1e3 * work.joules / work.batch,
        }
        for request_id in dict.fromkeys(share.request_id for share in work.shares):
            if self._is_traced(request_id):
                name = f"segment {work.segment} of {model}"
                own = int.from_bytes(os.urandom(8), "big")
                began, ended = offset + work.began, offset + work.ended
                parent = int(request_id, 16)
                yield self._span(name, request_id, own, parent, began, ended, about)

    def _span(
        self,
        name: str,
        request_id: str,
        own: int,
        parent: int | None,
        began: float,
        ended: float,
        about: Mapping[str, Any],
    ) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

        def context(number: int) -> SpanContext:
            trace = self._run | int(request_id, 16)
            return SpanContext(trace, number, False, TraceFlags(TraceFlags.SAMPLED))

        return ReadableSpan(
            name,
            context(own),
            None if parent is None else context(parent),
            self._resource,
            {key: value for key, value in about.items() if value is not None},
            kind=SpanKind.SERVER if parent is None else SpanKind.INTERNAL,
            start_time=int(1e9 * began),
            end_time=int(1e9 * ended),
        )
