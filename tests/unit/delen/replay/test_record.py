from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from delen.core.bounds import Bounds
from delen.core.result import Result
from delen.errors import BudgetExhausted, DelenError, Draining, InfeasibleBound, Nearest
from delen.replay.inputs import UNKNOWN
from delen.replay.record import Record
from delen.simulate.summary import summarise
from delen.simulate.trace import Arrival, Trace

CAPPED = Bounds(max_latency=0.02, min_accuracy=0.9, max_energy=0.01)
MakeResult = Callable[..., Result]


def record(*labels: int, bounds: Bounds = CAPPED) -> Record:
    """Of requests every second, of tenants a and b in turn."""
    arrivals = [Arrival(float(n), "ab"[n % 2], bounds=bounds) for n in range(len(labels))]
    due = np.array([arrival.time for arrival in arrivals])
    return Record(Trace(tuple(arrivals)), due, np.array(labels, np.int64), exits=4)


def test_the_figures_are_the_simulators(make_result: MakeResult) -> None:
    made = record(0, 0, 0, 0, 0, 0)
    for row in range(6):
        made.sent(row, row + 0.001)
    made.answered(0, 0.012, make_result(index=0))
    made.answered(1, 1.012, make_result(index=1, exit=3))
    made.answered(2, 2.012, make_result(index=0, latency_met=False))
    made.refused(3, 3.001, InfeasibleBound("no", Nearest()))
    made.refused(4, 4.001, Draining("no", 1.0))
    made.failed(5, 35.0, "timeout")
    summary = summarise(made.outcomes("daemon", "daemon"), None)
    json.dumps(summary)
    assert (summary["requests"], summary["answered"], summary["refused"]) == (6, 3, 3)
    assert summary["refused_why"] == {"bounds": 1, "load": 1, "given_up": 1}
    assert summary["missed"] == {"latency": 1, "accuracy": 0, "energy": 0}
    assert summary["accuracy"] == pytest.approx(2 / 3)
    assert summary["effective_accuracy"] == pytest.approx(1 / 6)
    assert summary["latency_ms"]["p50"] == pytest.approx(10.0)
    assert summary["energy_j"] == pytest.approx(0.006)
    assert summary["exits"] == pytest.approx([0, 2 / 3, 0, 1 / 3])
    assert summary["tenants"]["a"]["requests"] == 3
    assert summary["tenants"]["b"]["refused_why"] == {"bounds": 1, "load": 0, "given_up": 1}
    assert summary["fairness"]["time"] is None, "nobody knows the device time"
    assert summary["decision_us"]["p50"] is None
    assert made.accuracy_kind == "measured"


def test_the_client_counts_from_when_the_trace_says(make_result: MakeResult) -> None:
    made = record(0, 0, 0)
    made.sent(0, 0.005)
    made.answered(0, 0.015, make_result())
    made.sent(1, 1.001)
    made.answered(1, 1.025, make_result())
    made.failed(2, 2.0, "not_sent")
    figures = made.client_figures()
    assert figures["latency_ms"]["p50"] == pytest.approx(20.0)
    assert figures["missed_latency"] == 1
    assert figures["sent_late_ms"]["max"] == pytest.approx(5.0)
    assert figures["ended"] == {"answered": 2, "not_sent": 1}
    by_client = made.outcomes("daemon", "client")
    assert by_client.missed_latency.tolist() == [False, True, False]
    assert by_client.latency[:2] == pytest.approx([0.015, 0.025])
    assert not made.outcomes("daemon", "daemon").missed_latency.any()


def test_without_labels_accuracy_is_what_receipts_expect(make_result: MakeResult) -> None:
    made = record(UNKNOWN, UNKNOWN, UNKNOWN)
    made.answered(0, 0.01, make_result(expected=0.8))
    made.answered(1, 1.01, make_result(expected=None, overall=0.6))
    made.failed(2, 2.0, "broken")
    summary = summarise(made.outcomes("daemon", "daemon"), None)
    assert made.accuracy_kind == "expected"
    assert summary["accuracy"] == pytest.approx(0.7)
    assert summary["effective_accuracy"] == pytest.approx(1.4 / 3)


def test_accuracy_that_nobody_knows_is_none_and_not_0(make_result: MakeResult) -> None:
    made = record(UNKNOWN, UNKNOWN)
    made.answered(0, 0.01, make_result())
    made.answered(1, 1.01, make_result(expected=None, overall=None))
    summary = summarise(made.outcomes("daemon", "daemon"), None)
    assert (summary["accuracy"], summary["effective_accuracy"]) == (None, None)


def test_only_requests_with_labels_are_judged_where_some_have_them(
    make_result: MakeResult,
) -> None:
    made = record(0, UNKNOWN, 0, UNKNOWN)
    made.answered(0, 0.01, make_result(index=0))
    made.answered(1, 1.01, make_result(index=2))
    made.failed(2, 2.0, "timeout")
    made.failed(3, 3.0, "timeout")
    summary = summarise(made.outcomes("daemon", "daemon"), None)
    assert summary["accuracy"] == 1.0
    assert summary["effective_accuracy"] == 0.5


def test_a_bound_that_is_not_known_to_be_kept_is_missed(make_result: MakeResult) -> None:
    unknown = {"accuracy_met": None, "energy": None, "energy_met": None, "kind": "unknown"}
    made = record(0)
    made.answered(0, 0.01, make_result(**unknown))
    summary = summarise(made.outcomes("daemon", "daemon"), None)
    assert summary["missed"] == {"latency": 0, "accuracy": 1, "energy": 1}
    assert summary["energy_j"] is None
    assert made.energy_kind == "unknown"
    free = record(0, bounds=Bounds())
    free.answered(0, 0.01, make_result(**unknown))
    assert not free.outcomes("daemon", "daemon").missed.any()


def test_what_has_not_ended_is_left_out(make_result: MakeResult) -> None:
    made = record(0, 0, 0)
    made.sent(0, 0.0)
    made.sent(1, 1.0)
    made.answered(1, 1.01, make_result())
    assert len(made) == 1
    outcomes = made.outcomes("daemon", "daemon")
    assert len(outcomes) == 1
    assert outcomes.tenants[outcomes.tenant[0]] == "b"
    json.dumps(summarise(outcomes, None))


def test_budgets_are_counted_by_their_code() -> None:
    made = record(0, 0)
    made.refused(0, 0.1, BudgetExhausted("spent", 3.0))
    made.refused(1, 1.1, DelenError("it failed"))
    assert made.client_figures()["ended"] == {"budget_exhausted": 1, "internal": 1}
    assert made.energy_kind is None
    why = summarise(made.outcomes("daemon", "daemon"), None)["refused_why"]
    assert why == {"bounds": 0, "load": 1, "given_up": 1}
