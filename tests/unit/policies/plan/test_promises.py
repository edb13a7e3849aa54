from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from delen.bundle.calibration import THRESHOLDS, Calibration
from policies.plan.promises import Promises, Terms

MakeCalibration = Callable[..., Calibration]


def test_a_floor_is_the_promise_itself(make_calibration: MakeCalibration) -> None:
    promises = Promises(make_calibration(0.6, 0.9), 0.05, 1)
    assert promises.error(Terms(0.8, 1, floor=0.85)) == pytest.approx(0.15)


def test_without_a_floor_errors_are_promised_with_a_margin(
    make_calibration: MakeCalibration,
) -> None:
    few, many = (make_calibration(0.6, 0.8, 0.9, samples=n) for n in (500, 8000))
    for terms in (Terms(None, 0, None), Terms(None, 2, None), Terms(0.8, 2, None)):
        seen = 1 - many.right_answers(terms.threshold, terms.deepest).mean()
        close = Promises(many, 0.05, 2).error(terms)
        assert seen < close < seen + 0.03
        assert close < Promises(few, 0.05, 2).error(terms)


def test_disagreement_is_that_of_the_answers_that_stop_early(
    make_calibration: MakeCalibration,
) -> None:
    table = make_calibration(0.6, 0.8, 0.9, samples=8000)
    promises = Promises(table, 0.05, 2)
    for threshold, deepest in ((0.9, 2), (0.6, 2), (0.6, 1)):
        taken = table.exits_taken(threshold, deepest)
        for exit in range(deepest):
            differ = table.predictions[:, exit] != table.predictions[:, 2]
            seen = differ[taken == exit].mean()
            assert seen < promises.disagreement(threshold, deepest, exit) < seen + 0.12
    assert promises.disagreement(1.0, 2, 0) == 1  # nobody stops: nothing can be said


def test_bounds_hold_at_all_thresholds_at_once(make_calibration: MakeCalibration) -> None:
    population = make_calibration(0.6, 0.8, 0.9, samples=20_000)
    rng, broken = np.random.default_rng(2), 0
    truth = 1 - population.curve(2).accuracy
    for _ in range(20):
        drawn = rng.integers(0, population.samples, 400)
        table = Calibration(
            population.confidence[drawn], population.correct[drawn], population.predictions[drawn]
        )
        promises = Promises(table, 0.2, 2)
        broken += any(
            promises.error(Terms(float(THRESHOLDS[index]), 2, None)) < truth[index]
            for index in range(0, len(THRESHOLDS), 20)
        )
    assert broken / 20 <= 0.2


def test_bounds_hold_over_groups(make_calibration: MakeCalibration) -> None:
    population = make_calibration(0.6, 0.8, 0.9, samples=40_000, group_size=20)
    whole = Calibration(population.confidence, population.correct, population.predictions)
    assert population.groups is not None
    rng, broken = np.random.default_rng(2), 0
    stops = whole.exits_taken(0.8, 2) == 0
    differ = (whole.predictions[:, 0] != whole.predictions[:, 2])[stops].mean()
    for _ in range(20):
        rows = np.flatnonzero(np.isin(population.groups, rng.choice(2000, 150, replace=False)))
        table = Calibration(
            population.confidence[rows],
            population.correct[rows],
            population.predictions[rows],
            population.groups[rows],
        )
        promises = Promises(table, 0.2, 2)
        broken += promises.error(Terms(0.6, 2, None)) < 1 - whole.right_answers(0.6, 2).mean()
        broken += promises.disagreement(0.8, 2, 0) < differ
        pooled = Promises(Calibration(table.confidence, table.correct, table.predictions), 0.2, 2)
        assert pooled.disagreement(0.8, 2, 0) < promises.disagreement(0.8, 2, 0) < 1
    assert broken == 0
    assert promises.disagreement(1.0, 2, 0) == 1
