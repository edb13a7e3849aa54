from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from delen.core.energy_status import EnergyTotal
from delen.core.result import LatencyOutcome
from delen.tenants.energy_record import OTHERS
from delen.tenants.usage import MAX_TENANTS, SPAN, TenantTotals, Usage, fairness_of
from tests.unit.delen.answers import answer, work


def test_of_each_tenant_is_counted_what_was_answered_refused_and_missed() -> None:
    usage = Usage()
    for code in ("overloaded", "overloaded", "infeasible_bound"):
        usage.refused(0.0, "default", code)
    late = answer("a", bound=0.4)
    slow = LatencyOutcome(0.005, 0.01, 0.0, 0.01, False)
    usage.ran(0.0, work("a", "b"))
    usage.answered(0.0, replace(late, receipt=replace(late.receipt, latency=slow)))
    own = usage.tenants["default"]
    assert (own.answers, own.seconds) == (1, pytest.approx(0.1))
    assert own.refused == {"overloaded": 2, "infeasible_bound": 1}
    assert own.missed == {"latency": 1}
    energy = replace(late.receipt.energy, value=0.5, met=False, kind="attributed")
    usage.settled(late, replace(late.receipt, energy=energy))
    assert own.missed == {"latency": 1, "energy": 1}, "by its final energy"
    assert (own.attributed, own.estimated) == (0.5, 0.0)
    assert usage.record.totals() == [EnergyTotal("default", "tiny", 1, "attributed", 0.5)]


def test_energy_that_stays_unknown_is_not_counted() -> None:
    usage = Usage()
    usage.settled(answer("a", None), answer("a", None).receipt)
    assert usage.record.totals() == []


def test_tenants_beyond_the_limit_are_counted_together() -> None:
    usage = Usage()
    for number in range(MAX_TENANTS):
        usage.answered(0.0, answer(f"r{number}", tenant=f"t{number}"))
    usage.answered(0.0, answer("x", tenant="late"))
    usage.answered(0.0, answer("y", tenant="later"))
    usage.refused(0.0, "later", "overloaded")
    assert len(usage.tenants) == MAX_TENANTS + 1
    assert usage.tenants[OTHERS] == TenantTotals(answers=2, refused=Counter(overloaded=1))
    assert usage.recent(0.0)[OTHERS].answers == 2


def test_a_tenant_that_is_known_keeps_its_name() -> None:
    usage = Usage()
    for number in range(MAX_TENANTS):
        usage.refused(0.0, f"t{number}", "overloaded")
    usage.know("set")
    usage.refused(0.0, "set", "overloaded")
    assert usage.tenants["set"].refused == {"overloaded": 1}
    assert OTHERS not in usage.tenants


def test_only_the_last_minute_counts_as_recent() -> None:
    usage = Usage()
    usage.ran(0.0, work("a", tenant="a"))
    usage.answered(0.0, answer("a", 0.5, tenant="a"))
    usage.ran(30.0, work("b", tenant="a"))
    usage.refused(30.0, "b", "overloaded")
    usage.refused(30.0, "b", "infeasible_bound")
    recent = usage.recent(31.0)
    assert (recent["a"].seconds, recent["a"].joules, recent["a"].answers) == (0.2, 0.5, 1)
    assert recent["b"].turned_away == 1, "for the load alone"
    assert usage.recent(SPAN + 1)["a"].seconds == 0.1
    assert usage.recent(SPAN + 31) == {}
    assert usage.recent(31.0) == recent, "looking ahead forgot nothing"


def test_a_copy_goes_on_apart() -> None:
    usage = Usage()
    usage.answered(0.0, answer("a"))
    usage.refused(0.0, "default", "overloaded")
    same = usage.copy()
    assert same.tenants == usage.tenants
    same.answered(1.0, answer("b"))
    same.refused(1.0, "default", "overloaded")
    same.settled(answer("b"), answer("b").receipt)
    assert same.tenants["default"].answers == 2
    assert usage.tenants["default"] == TenantTotals(answers=1, refused=Counter(overloaded=1))
    assert (usage.recent(1.0)["default"].answers, usage.record.totals()) == (1, [])


def test_fairness_is_by_weight_and_unknown_where_a_figure_is() -> None:
    usage = Usage()
    for tenant, batches in (("heavy", 3), ("light", 1)):
        for _ in range(batches):
            usage.ran(0.0, work("r", tenant=tenant))
        usage.answered(0.0, answer("r", None, tenant=tenant))
        for _ in range(9):
            usage.refused(0.0, tenant, "overloaded")
    by_weight = fairness_of(usage.recent(1.0), {"heavy": 3.0, "light": 1.0}.__getitem__)
    assert by_weight.time == pytest.approx(1.0)
    assert by_weight.energy is None
    alike = fairness_of(usage.recent(1.0), lambda name: 1.0)
    assert alike.time == pytest.approx(0.8)
