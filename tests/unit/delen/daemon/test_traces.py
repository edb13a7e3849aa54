from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from delen.core.failures import failure_counts
from delen.core.work import Share, Work
from delen.daemon.traces import Traces, open_traces
from delen.errors import ConfigError, MissingExtra
from tests.unit.api.metrics.test_requests import RESULT

WORK = Work("m", 0, 1, 0.0, 0.5, None, (Share("00000000000000a1", "t"),))
SETTINGS: Any = {"traces.endpoint": "http://127.0.0.1:1", "traces.share": 1.0}


class Recorder:
    def __init__(self) -> None:
        self.told: list[object] = []

    def answered(self, result: object) -> None:
        self.told.append(result)

    def ran(self, work: object) -> None:
        self.told.append(work)

    def segment_failed(self, *what: object) -> None:
        self.told.append(what)

    policy_failed = dispatch_failed = audited = segment_failed


def test_without_an_endpoint_there_is_nothing() -> None:
    observer: Any = Recorder()
    assert open_traces({**SETTINGS, "traces.endpoint": ""}, observer, "n") is None


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    observer: Any = Recorder()
    with pytest.raises(ConfigError, match="endpoint"):
        open_traces({**SETTINGS, "traces.endpoint": "localhost:4318"}, observer, "n")


def test_without_the_extra_the_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    observer: Any = Recorder()
    with pytest.raises(MissingExtra, match="otel"):
        open_traces(SETTINGS, observer, "n")


@pytest.fixture
def observer() -> Any:
    pytest.importorskip("opentelemetry.sdk.trace", reason="traces are of delen[otel]")
    return Recorder()


def test_everything_goes_on_to_the_observer_and_a_collector_that_is_gone_is_counted(
    observer: Any,
) -> None:
    before = failure_counts().get("traces", 0)
    traces = open_traces(SETTINGS, observer, "n")
    assert traces is not None
    result = replace(RESULT, request_id="00000000000000a1")
    traces.answered(result)
    traces.ran(WORK)
    traces.segment_failed("m", 1)
    traces.policy_failed("m")
    traces.dispatch_failed(2)
    traces.audited("m", True)
    assert observer.told == [result, WORK, ("m", 1), ("m",), (2,), ("m", True)]
    traces.close()
    assert failure_counts()["traces"] > before


def test_a_share_of_the_requests_is_traced(observer: Any) -> None:
    traces = Traces(observer, "http://127.0.0.1:1", 0.25, "n")
    kept = [traces._is_traced(f"{number:02x}000000000000a1") for number in range(256)]
    traces.close()
    assert sum(kept) == 64
