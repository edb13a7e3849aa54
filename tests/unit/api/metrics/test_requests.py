from __future__ import annotations

from dataclasses import replace

from api.metrics.requests import Metrics
from delen.core.result import Prediction, Result
from delen.core.work import Work
from tests.unit.api.conftest import RECEIPT

RESULT = Result(
    model="m",
    version="1",
    request_id="a-1",
    predictions=(Prediction(1, None, 0.9),),
    probabilities=None,
    exit=0,
    exits=3,
    reason="confident",
    receipt=RECEIPT,
    tenant="t",
    stream=None,
)
WORK = Work("m", 0, 1, 0.0, 0.5, None, ())


def read(metrics: Metrics) -> dict[str, str]:
    lines = metrics.exposition({"m"}).decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_an_answer_counts_from_when_it_leaves() -> None:
    metrics = Metrics()
    name = 'delen_answers_total{exit="0",model="m",reason="confident",tenant="t"}'
    metrics.answered(RESULT)
    assert read(metrics)[name] == "1.0"
    metrics.ran(WORK)
    metrics.answered(replace(RESULT, request_id="a-2"))
    metrics.ran(WORK)
    counted = read(metrics)
    assert counted[name] == "2.0"
    assert counted['delen_latency_seconds_count{model="m"}'] == "2.0"


def test_the_counts_are_the_same_however_often_they_are_read() -> None:
    often, once = Metrics(), Metrics()
    for number in range(100):
        latency = replace(RECEIPT.latency, value=0.0004 * number)
        result = replace(RESULT, receipt=replace(RECEIPT, latency=latency), exit=number % 3)
        work = Work("m", number % 3, 1 + number % 70, 0.0, 0.25, None, ())
        for metrics in (often, once):
            metrics.answered(result)
            metrics.ran(work)
        read(often)
    counted, others = read(once), read(often)
    assert all(counted[name] == others[name] for name in counted if "_created" not in name)
    assert counted['delen_batch_size_bucket{le="+Inf",model="m"}'] == "100.0"
    assert counted['delen_batch_size_bucket{le="64.0",model="m"}'] == "94.0"
    assert counted['delen_latency_seconds_bucket{le="0.002",model="m"}'] == "6.0"
    assert counted['delen_segment_seconds_total{model="m",segment="1"}'] == "8.25"
