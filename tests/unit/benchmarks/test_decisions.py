from __future__ import annotations

import pytest

from benchmarks import decisions
from policies.dispatch.value import Value


@pytest.mark.parametrize("waiting", [1, 30])
def test_a_turn_is_a_decision_and_the_reports_after_it(
    waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "DECISIONS", 20)
    made = decisions.costs(Value, waiting)
    assert len(made.decisions) == len(made.turns) == decisions.ROUNDS
    assert all(0 < one < whole for one, whole in zip(made.decisions, made.turns, strict=True))
