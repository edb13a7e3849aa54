from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power.attribution.spending import Runs, Spending

RUN = st.tuples(st.integers(0, 2), st.floats(0, 1), st.floats(1e-4, 0.5), st.floats(0, 5)).map(
    lambda run: (run[0], run[1], run[1] + run[2], run[3])
)


def power(
    runs: list[tuple[int, float, float, float]], segment: int, moments: np.ndarray
) -> np.ndarray:
    watts = np.zeros_like(moments)
    for number, began, ended, joules in runs:
        inside = (moments >= began) & (moments < ended)
        watts[inside & (number == segment)] += joules / (ended - began)
    return watts


@settings(max_examples=50, deadline=None)
@given(runs=st.lists(RUN, max_size=8), time=st.floats(-0.5, 2.5))
def test_boxes_and_hats_see_the_mean_of_what_ran(
    runs: list[tuple[int, float, float, float]], time: float
) -> None:
    spending = Spending(Runs.of(runs), 3)
    knots = np.array([-0.1, 0.0, 0.15, 0.4])
    hats = spending.under_hats(np.array([time]), knots)[0]
    boxes = spending.under_boxes(np.array([time]), np.array([0.3]), np.array([0.0, 0.2]))[0]
    ages = np.linspace(-0.2, 0.7, 9001)
    highest = max((joules / (ended - began) for _, began, ended, joules in runs), default=0.0)
    for segment in range(3):
        watts = power(runs, segment, time - ages)
        for k in range(2):
            hat = np.interp(ages, knots[k : k + 3], [0, 1, 0])
            assert hats[segment, k] == pytest.approx(
                watts @ hat / hat.sum(), abs=0.02 * highest + 1e-9
            )
            box = (ages >= 0.2 * k) & (ages < 0.2 * k + 0.3)
            assert boxes[segment, k] == pytest.approx(
                watts @ box / box.sum(), abs=0.02 * highest + 1e-9
            )
