from __future__ import annotations

import pytest

from delen.tenants.usage import SPAN, UsageWindow, fairness_of


def test_only_the_last_minute_counts() -> None:
    recent = UsageWindow()
    recent.ran(0.0, "a", 1.0)
    recent.answered(0.0, "a", 0.5)
    recent.ran(30.0, "a", 0.25)
    recent.turned_away(30.0, "b")
    totals = recent.totals(31.0)
    assert (totals["a"].seconds, totals["a"].joules, totals["a"].answers) == (1.25, 0.5, 1)
    assert totals["b"].turned_away == 1
    assert recent.totals(SPAN + 1)["a"].seconds == 0.25
    assert recent.totals(SPAN + 31) == {}


def test_fairness_is_by_weight_and_unknown_where_a_figure_is() -> None:
    recent = UsageWindow()
    for tenant, seconds in (("heavy", 3.0), ("light", 1.0)):
        recent.ran(0.0, tenant, seconds)
        recent.answered(0.0, tenant, None)
        for _ in range(9):
            recent.turned_away(0.0, tenant)
    by_weight = fairness_of(recent.totals(1.0), {"heavy": 3.0, "light": 1.0}.__getitem__)
    assert by_weight.time == pytest.approx(1.0)
    assert by_weight.energy is None
    alike = fairness_of(recent.totals(1.0), lambda name: 1.0)
    assert alike.time == pytest.approx(0.8)
