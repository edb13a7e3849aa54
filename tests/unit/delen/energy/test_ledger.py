from __future__ import annotations

from dataclasses import replace

import pytest

from delen.core.energy_status import EnergyTotal
from delen.core.handover import Part
from delen.core.work import Share, Split
from delen.energy.ledger import Correction, Ledger, Meter
from delen.tenants.usage import Usage
from tests.unit.delen.answers import answer, work

METER = Meter("ina3221", "module_input")


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
        known=frozenset(complete if measured else ()),
    )


def test_a_receipt_is_an_estimate_until_its_windows_are_closed() -> None:
    ledger = Ledger(10, METER, usage := Usage())
    ledger.ran(work("a", "b"))
    assert ledger.receipt("a") is None
    assert ledger.answered(answer("a", bound=0.6)) is None
    first = ledger.receipt("a")
    assert first is not None
    assert (first.settled, first.receipt.energy.value, first.receipt.met) == (False, 0.5, True)
    assert list(ledger.settle(window({"a": 0.3, "b": 0.3}))) == []
    corrections = list(ledger.settle(window({"a": 0.4}, "a", "b")))
    assert corrections == [Correction("default", 0.5, pytest.approx(0.7), pytest.approx(0.7))]
    last = ledger.receipt("a")
    assert last is not None
    energy = last.receipt.energy
    assert last.settled
    assert (energy.kind, energy.source, energy.scope) == ("attributed", *METER)
    assert (energy.value, energy.predicted) == (pytest.approx(0.7), 0.5)
    assert (energy.met, last.receipt.met) == (False, False)
    assert usage.record.totals() == [
        EnergyTotal("default", "tiny", 1, "attributed", pytest.approx(0.7))
    ]


def test_a_window_that_nobody_measured_leaves_the_answer_estimated() -> None:
    ledger = Ledger(10, METER, usage := Usage())
    ledger.ran(work("a"))
    ledger.answered(answer("a"))
    list(ledger.settle(window({"a": 0.3})))
    list(ledger.settle(window({"a": 0.3}, "a", measured=False)))
    settled = ledger.receipt("a")
    assert settled is not None
    energy = settled.receipt.energy
    assert (energy.value, energy.kind) == (pytest.approx(0.6), "estimated")
    assert (energy.source, energy.scope) == ("model", "processor")
    own = usage.tenants["default"]
    assert (own.attributed, own.estimated) == (0.0, pytest.approx(0.6))


def test_an_answer_waits_for_work_that_came_after_a_window() -> None:
    ledger = Ledger(10, METER, Usage())
    ledger.ran(work("a"))
    assert list(ledger.settle(window({"a": 0.3}, "a"))) == []
    ledger.ran(work("a"))
    ledger.answered(answer("a"))
    assert not ledger.receipt("a").settled  # type: ignore[union-attr]
    assert list(ledger.settle(window({"a": 0.1}, "a"))) == [
        Correction("default", 0.5, pytest.approx(0.4), pytest.approx(0.4))
    ]


def test_what_was_unknown_of_earlier_work_is_not_forgotten_with_what_comes_later() -> None:
    ledger = Ledger(10, METER, Usage())
    ledger.ran(work("a"))
    unknown = replace(window({"a": 0.3}, "a", measured=False), most={"a": 0.9})
    assert list(ledger.settle(unknown)) == []
    ledger.ran(work("a"))
    ledger.answered(answer("a"))
    [correction] = ledger.settle(replace(window({"a": 0.1}, "a"), most={"a": 0.15}))
    assert (correction.final, correction.most) == (pytest.approx(0.4), pytest.approx(1.05))
    settled = ledger.receipt("a")
    assert settled is not None
    assert settled.receipt.energy.kind == "estimated"


def test_an_answer_without_further_work_is_settled_at_once() -> None:
    """It was cut off while it waited between two segments."""
    ledger = Ledger(10, METER, Usage())
    ledger.ran(work("a"))
    list(ledger.settle(window({"a": 0.3}, "a")))
    assert ledger.answered(answer("a")) == Correction(
        "default", 0.5, pytest.approx(0.3), pytest.approx(0.3)
    )
    assert ledger.receipt("a").settled  # type: ignore[union-attr]


@pytest.mark.parametrize(("joules", "totals"), [(0.5, 1), (None, 0)])
def test_where_nothing_measures_the_first_figure_is_the_last(
    joules: float | None, totals: int
) -> None:
    ledger = Ledger(10, None, usage := Usage())
    ledger.ran(work("a"))
    assert ledger.answered(answer("a", joules)) is None
    settled = ledger.receipt("a")
    assert settled is not None
    assert settled.settled
    assert settled.receipt.energy.value == joules
    assert len(usage.record.totals()) == totals


def test_the_oldest_receipts_are_forgotten_but_counted() -> None:
    ledger = Ledger(2, METER, usage := Usage())
    for request in "abc":
        ledger.ran(work(request))
        ledger.answered(answer(request))
    assert ledger.receipt("a") is None
    list(ledger.settle(window(dict.fromkeys("abc", 0.2), *"abc")))
    assert ledger.receipt("a") is None
    assert ledger.receipt("c") is not None
    assert usage.tenants["default"].attributed == pytest.approx(0.6)


def test_a_failed_request_leaves_nothing_behind() -> None:
    ledger = Ledger(10, METER, usage := Usage())
    ledger.ran(work("a"))
    ledger.failed("a")
    assert list(ledger.settle(window({"a": 0.2}, "a"))) == []
    assert usage.record.totals() == []


def test_a_correction_says_what_a_request_took_at_the_most_and_replaces_what_was_charged() -> None:
    ledger = Ledger(10, METER, Usage())
    ledger.ran(work("a"))
    ledger.answered(answer("a"), charged=1.5)
    settled = replace(window({"a": 0.4}, "a", measured=False), most={"a": 0.9})
    assert list(ledger.settle(settled)) == [Correction("default", 1.5, pytest.approx(0.4), 0.9)]
    receipt = ledger.receipt("a")
    assert receipt is not None
    assert receipt.receipt.energy.value == pytest.approx(0.4), "the receipt is the best figure"


def test_what_is_written_off_keeps_its_estimate() -> None:
    ledger = Ledger(10, METER, Usage())
    ledger.ran(work("a", "b"))
    ledger.answered(answer("a"))
    assert ledger.write_off() == [Correction("default", 0.5, 0.5, 0.5)]
    settled = ledger.receipt("a")
    assert settled is not None
    assert (settled.settled, settled.receipt.energy.kind) == (True, "estimated")
    assert ledger.answered(answer("b")) is None
    assert ledger.receipt("b").settled  # type: ignore[union-attr]


def test_an_answer_that_is_not_kept_yet_has_its_first_receipt() -> None:
    first = Ledger(10, METER, Usage()).first_receipt(answer("a"))
    assert (first.request_id, first.settled) == ("a", False)
    assert first.receipt == answer("a").receipt
    assert Ledger(10, None, Usage()).first_receipt(answer("a")).settled, "it is the last one too"


@pytest.mark.parametrize("elsewhere", [0.25, None])
def test_what_another_node_took_is_in_the_receipt_and_in_nobodys_account_here(
    elsewhere: float | None,
) -> None:
    ledger = Ledger(10, METER, usage := Usage())
    ledger.ran(work("a"))
    begun = answer("a", bound=2.0)
    before = Part("board", (0,), 0.02, elsewhere)
    here = Part("server", (1,), 0.01, 0.5, is_here=True)
    receipt = replace(begun.receipt, parts=(before, here))
    ledger.answered(replace(begun, receipt=receipt))
    corrections = list(ledger.settle(window({"a": 0.7}, "a")))
    assert corrections == [Correction("default", 0.5, pytest.approx(0.7), pytest.approx(0.7))]
    last = ledger.receipt("a")
    assert last is not None
    energy, parts = last.receipt.energy, last.receipt.parts
    assert (parts[0], parts[1].energy) == (before, pytest.approx(0.7))
    if elsewhere is None:
        assert (energy.value, energy.kind, energy.met) == (None, "unknown", None)
    else:
        assert energy.value == pytest.approx(0.95)
        assert (energy.kind, energy.met) == ("estimated", True)
    (total,) = usage.record.totals()
    assert total.joules == pytest.approx(0.7)
