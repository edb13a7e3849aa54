from __future__ import annotations

import pytest

from delen.commands.profile_table import pairs_table
from delen.profile.batch_interference import fit

SIZES = (1, 2, 4, 8)


def _pairs(slope: float) -> dict[tuple[int, int], float]:
    """A batch is slowed by those that are larger than itself."""
    return {(own, other): 1.5 * (other / own) ** slope for own in SIZES for other in SIZES}


def test_it_predicts_pairs_of_sizes_that_were_not_measured() -> None:
    fitted = fit(_pairs(0.1))
    assert fitted.at(1, 16) == pytest.approx(1.5 * 16**0.1)
    assert fitted.at(3, 3) == pytest.approx(1.5)
    assert fitted.held_out == pytest.approx(0.0, abs=1e-6)
    assert fitted.held_out_of_one > 0.05
    assert fit(_pairs(0.6)).at(16, 1) == 1.0


def test_two_sizes_are_too_few() -> None:
    with pytest.raises(ValueError, match="three"):
        fit({(1, 1): 1.2, (1, 2): 1.3, (2, 1): 1.1, (2, 2): 1.4})


def test_the_table_has_each_pair_and_the_errors() -> None:
    table = pairs_table(_pairs(0.1))
    assert "1.85" in table and "1.22" in table
    assert "off by 0%" in table
    assert "left out" not in pairs_table({(1, 1): 1.2})
