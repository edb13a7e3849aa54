from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.bundle.calibration import THRESHOLDS, Calibration
from policies.plan.risk import most_errors, upper_bound_bounded
from policies.plan.thresholds import (
    LTT,
    UCB,
    agreement_threshold,
    certified_threshold,
    floor_without_error,
    highest_floor,
    lossless_threshold,
    samples_needed,
    units_needed,
)

MakeCalibration = Callable[..., Calibration]


def two_exits(blocks: list[tuple[float, bool, bool]], each: int) -> Calibration:
    """A table of blocks of ``each`` samples: confidence at exit 0, right there, right at exit 1."""
    confidence = np.repeat([[c, c] for c, _, _ in blocks], each, axis=0).astype(np.float32)
    correct = np.repeat([[first, last] for _, first, last in blocks], each, axis=0)
    return Calibration(confidence, correct, np.where(correct, 0, [1, 2]).astype(np.int32))


def test_the_first_threshold_that_fails_ends_the_sequence() -> None:
    # Taking exit 0 costs the confident ones their right answers, and gives the unsure ones theirs:
    # the floor fails between, and would pass again at the end of the grid.
    table = two_exits(
        [
            (0.98, True, True),
            (0.80, False, True),
            (0.40, True, False),
            (0.40, True, True),
        ],
        each=250,
    )
    accuracy = table.curve(1).accuracy
    assert accuracy[0] == accuracy[-1] == 0.75
    assert accuracy.min() == 0.5
    chosen = certified_threshold(table, 1, 0.7, 0.95)
    assert chosen is not None
    assert 0.80 < chosen.value <= 0.805
    assert chosen.accuracy == 0.75


def test_the_safest_that_fails_means_infeasible(make_calibration: MakeCalibration) -> None:
    assert certified_threshold(make_calibration(0.5, 0.8), 1, 0.81, 0.95) is None


def test_an_accuracy_just_at_the_floor_is_not_certified(make_calibration: MakeCalibration) -> None:
    table = make_calibration(0.5, 0.8, samples=1000)
    assert certified_threshold(table, 1, 0.8, 0.95) is None
    assert certified_threshold(table, 1, 0.75, 0.95) is not None


@given(st.floats(0.3, 0.95), st.sampled_from([0.5, 0.9, 0.95, 0.99]), st.integers(0, 2))
def test_what_is_certified_keeps_the_floor_on_the_table_and_is_lowest_so(
    make_calibration: MakeCalibration, floor: float, level: float, deepest: int
) -> None:
    table = make_calibration(0.6, 0.8, 0.9, samples=2000)
    curve = table.curve(deepest)
    passed = curve.samples - curve.correct <= most_errors(curve.samples, 1 - floor, 1 - level)
    chosen = certified_threshold(table, deepest, floor, level)
    if chosen is None:
        assert not passed[0]
        return
    index = THRESHOLDS.tolist().index(chosen.value)
    assert passed[: index + 1].all()
    assert index + 1 == len(passed) or not passed[index + 1]
    assert chosen.accuracy == curve.accuracy[index] >= floor - 1e-9


@given(st.floats(0.3, 0.95), st.sampled_from([0.5, 0.9, 0.95, 0.99]), st.integers(0, 2))
def test_the_upper_bound_of_the_risk_is_within_the_floor_from_the_threshold_up(
    make_calibration: MakeCalibration, floor: float, level: float, deepest: int
) -> None:
    table = make_calibration(0.6, 0.8, 0.9, samples=500)
    curve = table.curve(deepest)
    chosen = certified_threshold(table, deepest, floor, level, UCB)
    index = -1 if chosen is None else THRESHOLDS.tolist().index(chosen.value)
    bounds = [upper_bound_bounded(1 - a, 500, 1 - level) for a in curve.accuracy[: index + 2 : 7]]
    assert all(bound <= 1 - floor + 1e-9 for bound in bounds[: index // 7 + 1])
    if index + 1 < len(THRESHOLDS):
        first_above = upper_bound_bounded(1 - curve.accuracy[index + 1], 500, 1 - level)
        assert first_above > 1 - floor - 1e-9


def test_bounds_for_any_loss_are_more_careful(make_calibration: MakeCalibration) -> None:
    table = make_calibration(0.6, 0.8, 0.9, samples=1000)
    exact = certified_threshold(table, 2, 0.8, 0.95, LTT)
    general = certified_threshold(table, 2, 0.8, 0.95, UCB)
    assert exact is not None
    assert general is not None
    assert general.value >= exact.value
    assert highest_floor(table, 2, 0.95, UCB) < highest_floor(table, 2, 0.95, LTT)


def test_so_many_samples_are_needed_and_no_fewer() -> None:
    for floor, level in ((0.9, 0.95), (0.99, 0.95), (0.95, 0.9), (0.5, 0.99)):
        needed = samples_needed(floor, level)
        assert most_errors(needed, 1 - floor, 1 - level) >= 0
        assert most_errors(needed - 1, 1 - floor, 1 - level) == -1
    assert samples_needed(0.95, 0.95) == 59
    assert samples_needed(0.9, 0.95, accuracy=0.9) == inf
    some = samples_needed(0.9, 0.95, accuracy=0.92)
    assert most_errors(some, 0.1, 0.05) >= 0.08 * some
    assert most_errors(some // 4, 0.1, 0.05) < 0.08 * (some // 4)


@pytest.mark.parametrize("procedure", [LTT, UCB])
@pytest.mark.parametrize("deepest", [1, 2])
def test_certified_agreement_takes_no_labels(
    make_calibration: MakeCalibration, deepest: int, procedure: str
) -> None:
    table = make_calibration(0.6, 0.8, 0.9)
    unlabelled = Calibration(table.confidence, np.zeros_like(table.correct), table.predictions + 1)
    values = []
    for tolerance in (0.02, 0.05, 0.2, 1.0):
        chosen = agreement_threshold(table, deepest, tolerance, 0.95, procedure)
        blind = agreement_threshold(unlabelled, deepest, tolerance, 0.95, procedure)
        assert chosen is not None
        assert blind is not None
        assert blind.value == chosen.value
        taken = table.exits_taken(chosen.value, deepest)
        given = table.predictions[np.arange(table.samples), taken]
        assert (given != table.predictions[:, deepest]).mean() < tolerance
        values.append(chosen.value)
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_agreement_of_too_few_samples_is_not_certified(make_calibration: MakeCalibration) -> None:
    assert agreement_threshold(make_calibration(0.6, 0.9, samples=50), 1, 0.01, 0.95) is None


@pytest.mark.parametrize("procedure", [LTT, UCB])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("deepest", [0, 1, 2])
def test_the_highest_floor_is_feasible_and_little_more_is_not(
    make_calibration: MakeCalibration, deepest: int, level: float, procedure: str
) -> None:
    table = make_calibration(0.6, 0.8, 0.9, samples=1500)
    best = highest_floor(table, deepest, level, procedure)
    assert table.accuracy(deepest) - 0.05 < best < table.accuracy(deepest)
    assert certified_threshold(table, deepest, best, level, procedure) is not None
    assert certified_threshold(table, deepest, best + 0.002, level, procedure) is None


@pytest.mark.parametrize("procedure", [LTT, UCB])
def test_the_guarantee_holds_over_draws_of_the_calibration_images(
    make_calibration: MakeCalibration, procedure: str
) -> None:
    draws, floor, level = 300, 0.82, 0.95
    population = make_calibration(0.7, 0.85, 0.9, samples=40_000)
    true_accuracy = dict(
        zip(THRESHOLDS.tolist(), population.curve(2).accuracy.tolist(), strict=True)
    )
    assert min(true_accuracy.values()) < floor < max(true_accuracy.values())
    rng = np.random.default_rng(11)
    violations = certified = 0
    for _ in range(draws):
        drawn = rng.integers(0, population.samples, 500)
        table = Calibration(
            population.confidence[drawn], population.correct[drawn], population.predictions[drawn]
        )
        chosen = certified_threshold(table, 2, floor, level, procedure)
        certified += chosen is not None
        violations += chosen is not None and true_accuracy[chosen.value] < floor
    delta = 1 - level
    assert certified > draws / 2
    assert violations / draws <= delta + 3 * sqrt(delta * level / draws)


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.005, 0.02, 0.1]))
def test_a_lossless_threshold_loses_at_most_the_tolerance(
    make_calibration: MakeCalibration, seed: int, tolerance: float
) -> None:
    table = make_calibration(0.6, 0.85, 0.9, samples=800, seed=seed)
    for deepest in range(3):
        chosen = lossless_threshold(table, deepest, tolerance, 0.95)
        kept = table.right_answers(chosen.value, deepest).mean()
        assert kept >= table.accuracy(deepest) - tolerance - 1e-9
        assert chosen.accuracy == pytest.approx(kept)


def test_more_tolerance_stops_earlier(make_calibration: MakeCalibration) -> None:
    table = make_calibration(0.6, 0.8, 0.9)
    values = [lossless_threshold(table, 2, t, 0.95).value for t in (0.0, 0.01, 0.05, 0.5)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1] == 0


def drawn_groups(population: Calibration, count: int, rng: np.random.Generator) -> Calibration:
    """The table of ``count`` whole groups of the population."""
    assert population.groups is not None
    groups = rng.choice(population.units, count, replace=False)
    rows = np.flatnonzero(np.isin(population.groups, groups))
    return Calibration(
        population.confidence[rows],
        population.correct[rows],
        population.predictions[rows],
        population.groups[rows],
    )


def without_groups(table: Calibration) -> Calibration:
    return Calibration(table.confidence, table.correct, table.predictions)


@pytest.mark.parametrize("procedure", [LTT, UCB])
def test_floors_over_groups_hold_where_floors_over_samples_do_not(
    make_calibration: MakeCalibration, procedure: str
) -> None:
    draws, level, rng = 150, 0.9, np.random.default_rng(3)
    population = make_calibration(0.7, 0.85, 0.9, samples=60_000, group_size=20)
    truth = population.accuracy(2)
    by_groups = by_samples = 0
    for _ in range(draws):
        table = drawn_groups(population, 100, rng)
        by_groups += highest_floor(table, 2, level, procedure) > truth
        by_samples += highest_floor(without_groups(table), 2, level, LTT) > truth
    delta = 1 - level
    assert by_groups / draws <= delta + 2 * sqrt(delta * level / draws)
    assert by_samples / draws > delta + 3 * sqrt(delta * level / draws)


@pytest.mark.parametrize("procedure", [LTT, UCB])
@pytest.mark.parametrize("deepest", [0, 2])
def test_the_highest_floor_over_groups_is_feasible_and_little_more_is_not(
    make_calibration: MakeCalibration, deepest: int, procedure: str
) -> None:
    table = make_calibration(0.6, 0.8, 0.9, samples=6000, group_size=10)
    best = highest_floor(table, deepest, 0.95, procedure)
    assert table.accuracy(deepest) - 0.1 < best < table.accuracy(deepest)
    assert certified_threshold(table, deepest, best, 0.95, procedure) is not None
    assert certified_threshold(table, deepest, best + 0.0002, 0.95, procedure) is None
    lower = certified_threshold(table, deepest, best - 0.05, 0.95, procedure)
    assert lower is not None
    assert deepest == 0 or lower.value < 1


def test_agreement_and_lossless_thresholds_are_safer_over_groups(
    make_calibration: MakeCalibration,
) -> None:
    table = make_calibration(0.6, 0.8, 0.9, samples=6000, group_size=20)
    pooled = without_groups(table)
    for find in (agreement_threshold, lossless_threshold):
        over_groups, over_samples = find(table, 2, 0.05, 0.95), find(pooled, 2, 0.05, 0.95)
        assert over_groups is not None and over_samples is not None
        assert over_groups.value > over_samples.value


@pytest.mark.parametrize("procedure", [LTT, UCB])
def test_one_group_certifies_nothing(make_calibration: MakeCalibration, procedure: str) -> None:
    table = make_calibration(0.9, 1.0, samples=1000, group_size=1000)
    assert floor_without_error(table, 0.95, procedure) <= 0.05
    assert highest_floor(table, 1, 0.95, procedure) <= 0.05
    assert certified_threshold(table, 1, 0.5, 0.95, procedure) is None


@pytest.mark.parametrize("procedure", [LTT, UCB])
@pytest.mark.parametrize("group_size", [None, 10])
def test_what_so_many_can_certify_at_all(
    make_calibration: MakeCalibration, group_size: int | None, procedure: str
) -> None:
    table = make_calibration(0.9, 1.0, samples=2000, group_size=group_size)
    best = floor_without_error(table, 0.95, procedure)
    assert highest_floor(table, 1, 0.95, procedure) == best  # exit 1 is never wrong
    grouped = group_size is not None
    assert units_needed(grouped, best, 0.95, procedure) <= table.units
    assert units_needed(grouped, best + 0.0002, 0.95, procedure) > table.units
