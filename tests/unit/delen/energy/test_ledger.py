from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from delen.core.energy_status import EnergyTotal
from delen.core.result import (
    AccuracyOutcome,
    EnergyOutcome,
    LatencyOutcome,
    Prediction,
    Receipt,
    Result,
)
from delen.core.work import Share, Split, Work
from delen.energy.ledger import MAX_TENANTS, OTHERS, Correction, Ledger, Meter, TenantTotals

METER = Meter("ina3221", "module_input")


def answer(
    request: str, joules: float | None = 0.5, bound: float | None = None, **own: str
) -> Result:
    return Result(
        model="tiny",
        version="1",
        request_id=request,
        predictions=(Prediction(0, None, 1.0),),
        probabilities=None,
        exit=1,
        exits=3,
        reason="confident",
        receipt=Receipt(
            LatencyOutcome(None, 0.01, 0.0, 0.01, None),
            AccuracyOutcome(None, None, None, None, None),
            EnergyOutcome(
                bound,
                joules,
                joules,
                "unknown" if joules is None else "estimated",
                None if joules is None else "model",
                None if joules is None else "processor",
                None if bound is None else True,
            ),
        ),
        tenant=own.get("tenant", "default"),
        stream=None,
    )


def work(*requests: str) -> Work:
    shares = tuple(Share(request, "default") for request in requests)
    return Work("tiny", 0, max(1, len(requests)), 0.0, 0.1, 0.5, shares)


def window(
    joules: dict[str, float], *complete: str, measured: bool = True, tenant: str = "default"
) -> Split:
    return Split(
        began=0.0,
        ended=1.0,
        kind="attributed" if measured else "estimated",
        measured=10.0 if measured else None,
        attributed=sum(joules.values()),
        idle=9.0 if measured else None,
        other=1.0 - sum(joules.values()) if measured else None,
        by_share={Share(request, tenant): each for request, each in joules.items()},
        complete=frozenset(complete),
    )


def test_a_receipt_is_an_estimate_until_its_windows_are_closed() -> None:
    ledger = Ledger(10, METER)
    ledger.ran(work("a", "b"))
    assert ledger.receipt("a") is None
    assert ledger.answered(answer("a", bound=0.6)) is None
    first = ledger.receipt("a")
    assert first is not None
    assert (first.settled, first.receipt.energy.value, first.receipt.met) == (False, 0.5, True)
    assert list(ledger.settle(window({"a": 0.3, "b": 0.3}))) == []
    corrections = list(ledger.settle(window({"a": 0.4}, "a", "b")))
    assert corrections == [Correction("default", 0.5, pytest.approx(0.7))]
    last = ledger.receipt("a")
    assert last is not None
    energy = last.receipt.energy
    assert last.settled
    assert (energy.kind, energy.source, energy.scope) == ("attributed", *METER)
    assert (energy.value, energy.predicted) == (pytest.approx(0.7), 0.5)
    assert (energy.met, last.receipt.met) == (False, False)
    assert ledger.totals() == [EnergyTotal("default", "tiny", 1, "attributed", pytest.approx(0.7))]


def test_a_window_that_nobody_measured_leaves_the_answer_estimated() -> None:
    ledger = Ledger(10, METER)
    ledger.ran(work("a"))
    ledger.answered(answer("a"))
    list(ledger.settle(window({"a": 0.3})))
    list(ledger.settle(window({"a": 0.3}, "a", measured=False)))
    settled = ledger.receipt("a")
    assert settled is not None
    energy = settled.receipt.energy
    assert (energy.value, energy.kind) == (pytest.approx(0.6), "estimated")
    assert (energy.source, energy.scope) == ("model", "processor")
    assert ledger.tenants() == {"default": TenantTotals(0.0, pytest.approx(0.6), 1, seconds=0.1)}


def test_an_answer_waits_for_work_that_came_after_a_window() -> None:
    ledger = Ledger(10, METER)
    ledger.ran(work("a"))
    assert list(ledger.settle(window({"a": 0.3}, "a"))) == []
    ledger.ran(work("a"))
    ledger.answered(answer("a"))
    assert not ledger.receipt("a").settled  # type: ignore[union-attr]
    assert list(ledger.settle(window({"a": 0.1}, "a"))) == [
        Correction("default", 0.5, pytest.approx(0.4))
    ]


def test_an_answer_without_further_work_is_settled_at_once() -> None:
    """It was cut off while it waited between two segments."""
    ledger = Ledger(10, METER)
    ledger.ran(work("a"))
    list(ledger.settle(window({"a": 0.3}, "a")))
    assert ledger.answered(answer("a")) == Correction("default", 0.5, pytest.approx(0.3))
    assert ledger.receipt("a").settled  # type: ignore[union-attr]


@pytest.mark.parametrize(("joules", "totals"), [(0.5, 1), (None, 0)])
def test_where_nothing_measures_the_first_figure_is_the_last(
    joules: float | None, totals: int
) -> None:
    ledger = Ledger(10, None)
    ledger.ran(work("a"))
    assert ledger.answered(answer("a", joules)) is None
    settled = ledger.receipt("a")
    assert settled is not None
    assert settled.settled
    assert settled.receipt.energy.value == joules
    assert len(ledger.totals()) == totals


def test_the_oldest_receipts_are_forgotten_but_counted() -> None:
    ledger = Ledger(2, METER)
    for request in "abc":
        ledger.ran(work(request))
        ledger.answered(answer(request))
    assert ledger.receipt("a") is None
    list(ledger.settle(window(dict.fromkeys("abc", 0.2), *"abc")))
    assert ledger.receipt("a") is None
    assert ledger.receipt("c") is not None
    booked = TenantTotals(pytest.approx(0.6), 0.0, 3, seconds=pytest.approx(0.3))
    assert ledger.tenants()["default"] == booked


def test_a_failed_request_leaves_nothing_behind() -> None:
    ledger = Ledger(10, METER)
    ledger.ran(work("a"))
    ledger.failed("a")
    assert list(ledger.settle(window({"a": 0.2}, "a"))) == []
    assert ledger.totals() == []


def test_what_is_written_off_keeps_its_estimate() -> None:
    ledger = Ledger(10, METER)
    ledger.ran(work("a", "b"))
    ledger.answered(answer("a"))
    assert ledger.write_off() == [Correction("default", 0.5, 0.5)]
    settled = ledger.receipt("a")
    assert settled is not None
    assert (settled.settled, settled.receipt.energy.kind) == (True, "estimated")
    assert ledger.answered(answer("b")) is None
    assert ledger.receipt("b").settled  # type: ignore[union-attr]


def test_tenants_beyond_the_limit_are_counted_together() -> None:
    ledger = Ledger(10, None)
    for number in range(MAX_TENANTS):
        ledger.answered(answer(f"r{number}", tenant=f"t{number}"))
    ledger.answered(answer("x", tenant="late"))
    ledger.answered(answer("y", tenant="later"))
    ledger.refused("later", "overloaded")
    tenants = ledger.tenants()
    assert len(tenants) == MAX_TENANTS + 1
    assert tenants[OTHERS] == TenantTotals(0.0, 1.0, 2, Counter(overloaded=1))
    assert ledger.receipt("x").tenant == "late"  # type: ignore[union-attr]


def test_of_each_tenant_is_counted_what_was_refused_and_which_bounds_were_broken() -> None:
    ledger = Ledger(10, METER)
    for code in ("overloaded", "overloaded", "infeasible_bound"):
        ledger.refused("default", code)
    late = answer("a", bound=0.4)
    receipt = replace(late.receipt, latency=LatencyOutcome(0.005, 0.01, 0.0, 0.01, False))
    ledger.ran(work("a"))
    ledger.answered(replace(late, receipt=receipt))
    assert ledger.tenants()["default"].missed == {"latency": 1}
    list(ledger.settle(window({"a": 0.5}, "a")))
    booked = ledger.tenants()["default"]
    assert booked.missed == {"latency": 1, "energy": 1}, "by its final energy"
    assert booked.refused == {"overloaded": 2, "infeasible_bound": 1}


def test_a_tenant_that_is_known_keeps_its_name() -> None:
    ledger = Ledger(10, None)
    for number in range(MAX_TENANTS):
        ledger.refused(f"t{number}", "overloaded")
    ledger.know("set")
    ledger.refused("set", "overloaded")
    assert ledger.tenants()["set"].refused == {"overloaded": 1}
    assert OTHERS not in ledger.tenants()
