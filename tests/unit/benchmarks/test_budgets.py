"""The budget in true joules, in a closed loop with plants that nothing here knows."""

from __future__ import annotations

import pytest

from benchmarks.budgets import CELLS, run


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("fast, true/predicted 3", 0),
        ("60 ms late, true/predicted 1.3", 2),
        ("others' steps of 3 W, held 1 s, 3", 2),
        ("alone, fast, 3", 1),
        ("measured profile, fast", 1),
    ],
)
def test_a_budget_is_kept_in_true_joules(name: str, seed: int) -> None:
    """Each of these drew from 1.07 to 2 times its budget while estimates were charged as they
    were."""
    outcome = run(next(cell for cell in CELLS if cell.name == name), seed)
    assert 0.2 < outcome.mean <= outcome.worst <= 1.05


def test_a_measured_profile_lets_most_of_a_budget_be_used() -> None:
    cells = {cell.name: cell for cell in CELLS}
    assert run(cells["measured profile, held 1 s"], 0).mean > 0.75
