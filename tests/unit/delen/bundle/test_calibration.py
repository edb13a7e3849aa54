from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from delen.bundle.calibration import LEAST_CASES, THRESHOLDS, Calibration
from delen.core.plan import Case
from delen.errors import BundleError


@st.composite
def tables(draw: st.DrawFn) -> Calibration:
    """Small tables; many confidences lie just on a threshold, or are 0 or 1."""
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, 4)))
    confidences = st.one_of(
        st.sampled_from(THRESHOLDS.tolist()).map(lambda value: float(np.float32(value))),
        st.floats(0, 1, width=32),
    )
    confidence = draw(arrays.arrays(np.float32, shape, elements=confidences))
    classes = st.integers(0, 2)
    predictions = draw(arrays.arrays(np.int32, shape, elements=classes))
    labels = draw(arrays.arrays(np.int32, (shape[0], 1), elements=classes))
    return Calibration(confidence, predictions == labels, predictions)


def naive_exits(table: Calibration, threshold: float, deepest: int) -> list[int]:
    """Each sample's exit, as the engine finds it: one confidence after the other, as floats."""
    taken = []
    for row in table.confidence.tolist():
        exit = 0
        while exit < deepest and row[exit] < threshold:
            exit += 1
        taken.append(exit)
    return taken


@given(tables(), st.data())
def test_the_curve_is_what_one_finds_sample_by_sample(
    table: Calibration, data: st.DataObject
) -> None:
    deepest = data.draw(st.integers(0, table.exits - 1))
    curve = table.curve(deepest)
    assert curve.samples == table.samples
    for threshold, correct in zip(THRESHOLDS.tolist(), curve.correct.tolist(), strict=True):
        taken = naive_exits(table, threshold, deepest)
        assert table.exits_taken(threshold, deepest).tolist() == taken
        right = [bool(table.correct[sample, exit]) for sample, exit in enumerate(taken)]
        assert correct == sum(right)
        assert table.right_answers(threshold, deepest).tolist() == right


@given(tables(), st.data())
def test_agreement_is_with_the_deepest_exit(table: Calibration, data: st.DataObject) -> None:
    deepest = data.draw(st.integers(0, table.exits - 1))
    curve = table.agreement(deepest)
    for threshold, agreeing in zip(THRESHOLDS.tolist(), curve.correct.tolist(), strict=True):
        given = [
            table.predictions[sample, exit]
            for sample, exit in enumerate(naive_exits(table, threshold, deepest))
        ]
        assert agreeing == sum(given == table.predictions[:, deepest])


@given(tables(), st.sampled_from(THRESHOLDS.tolist()), st.data())
def test_shares_are_of_all_samples(
    table: Calibration, threshold: float, data: st.DataObject
) -> None:
    deepest = data.draw(st.integers(0, table.exits - 1))
    shares = table.exit_shares(threshold, deepest)
    taken = naive_exits(table, threshold, deepest)
    assert shares == pytest.approx(
        [taken.count(exit) / table.samples for exit in range(deepest + 1)]
    )
    assert sum(shares) == pytest.approx(1)


@given(tables())
def test_a_table_comes_back_from_its_file(table: Calibration) -> None:
    back = Calibration.from_npz(table.to_npz(), "table")
    np.testing.assert_array_equal(back.confidence, table.confidence)
    np.testing.assert_array_equal(back.correct, table.correct)
    np.testing.assert_array_equal(back.predictions, table.predictions)


def test_thresholds_go_from_the_safest_down() -> None:
    assert THRESHOLDS[0] == 1
    assert THRESHOLDS[-1] == 0
    assert (np.diff(THRESHOLDS) < 0).all()


def constructed(group: int = 100) -> Calibration:
    """Four groups of samples; two exits and a last one.

    Confident at exit 0 (90 % right there), confident at exit 1 (80 %), and two that are never
    confident: 30 % right at exit 0, 40 % at exit 1, 70 % at exit 2.
    """

    def right(percent: int) -> NDArray[np.bool_]:
        return np.arange(group) < percent * group // 100

    high, low = np.full(group, 0.95, np.float32), np.full(group, 0.5, np.float32)
    blocks = [
        ((high, high, high), (right(90), right(95), right(96))),
        ((low, high, high), (right(40), right(80), right(92))),
        ((low, low, low), (right(30), right(40), right(70))),
        ((low, low, low), (right(30), right(40), right(70))),
    ]
    confidence = np.concatenate([np.stack(columns, axis=1) for columns, _ in blocks])
    correct = np.concatenate([np.stack(columns, axis=1) for _, columns in blocks])
    return Calibration(confidence, correct, answers(correct))


def answers(correct: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Predictions of label 0 where they are right, and of a class of the exit's own elsewhere."""
    return np.where(correct, 0, 1 + np.arange(correct.shape[-1])).astype(np.int32)


def approximately(*accuracies: float | None) -> Case:
    return Case(*(None if a is None else pytest.approx(a) for a in accuracies))


def test_each_way_to_end_at_an_exit_has_its_own_accuracy() -> None:
    cases = constructed().cases(0.9, deepest=2)
    assert cases[0] == approximately(0.90, (0.9 + 0.4 + 0.3 + 0.3) / 4, (0.4 + 0.3 + 0.3) / 3)
    assert cases[1] == approximately(0.80, (0.8 + 0.4 + 0.4) / 3, 0.40)
    assert cases[2] == approximately(None, 0.70, 0.70)


def test_an_average_is_no_substitute_for_a_forced_exit() -> None:
    table = constructed()
    forced = table.cases(0.9, deepest=2)[0].forced
    assert forced is not None
    assert forced < table.accuracy(0) - 0.1


def test_without_a_threshold_everything_reaches_every_exit() -> None:
    table = constructed()
    for exit, case in enumerate(table.cases(None, deepest=2)):
        assert case == approximately(None, table.accuracy(exit), table.accuracy(exit))


def test_a_case_of_too_few_samples_is_unknown() -> None:
    enough, too_few = constructed(LEAST_CASES), constructed(LEAST_CASES - 1)
    assert enough.cases(0.9, 2)[0].confident is not None
    assert too_few.cases(0.9, 2)[0].confident is None
    assert too_few.cases(0.9, 2)[0].forced is not None


def test_nobody_is_forced_where_all_are_confident() -> None:
    cases = constructed().cases(0.0, deepest=2)
    assert cases[0] == approximately(constructed().accuracy(0), constructed().accuracy(0), None)
    assert cases[1] == Case(None, None, None)


@pytest.mark.parametrize(
    ("confidence", "correct"),
    [
        (np.zeros((2, 2), np.float32), np.zeros((2, 3), bool)),
        (np.zeros((2, 3), np.float32), np.zeros((2, 2), bool)),
        (np.zeros(2, np.float32), np.zeros(2, bool)),
        (np.zeros((0, 2), np.float32), np.zeros((0, 2), bool)),
        (np.full((2, 2), 1.5, np.float32), np.zeros((2, 2), bool)),
        (np.full((2, 2), np.nan, np.float32), np.zeros((2, 2), bool)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    confidence: NDArray[np.float32], correct: NDArray[np.bool_]
) -> None:
    with pytest.raises(ValueError, match="confidence"):
        Calibration(confidence, correct, answers(correct))


@pytest.mark.parametrize(
    ("correct", "predictions", "problem"),
    [
        ([True, False], [1, 1], "exits 0 and 1 contradict"),
        ([True, True], [1, 2], "exits 0 and 1 contradict"),
        ([False, False], [1, -1], "from 0 on"),
        ([False, False], [1, 2, 3], "predictions"),
    ],
)
def test_predictions_that_no_label_explains_are_refused(
    correct: list[bool], predictions: list[int], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        Calibration(
            np.full((1, 2), 0.5, np.float32),
            np.array([correct]),
            np.array([predictions], np.int32),
        )


@st.composite
def grouped_tables(draw: st.DrawFn) -> Calibration:
    table = draw(tables())
    names = st.sampled_from([0, 3, 7])
    groups = draw(arrays.arrays(np.int32, table.samples, elements=names))
    return Calibration(table.confidence, table.correct, table.predictions, groups)


@given(grouped_tables(), st.data())
def test_every_group_weighs_the_same_in_all_figures(
    table: Calibration, data: st.DataObject
) -> None:
    if table.groups is None:
        return
    deepest = data.draw(st.integers(0, table.exits - 1))
    members = [np.flatnonzero(table.groups == group) for group in range(table.units)]
    accuracies, agreeing = table.curve(deepest).accuracy, table.agreement(deepest).accuracy
    for index in range(0, len(THRESHOLDS), 20):
        threshold = float(THRESHOLDS[index])
        taken = table.exits_taken(threshold, deepest)
        right = table.right_answers(threshold, deepest)
        agrees = table.predictions[np.arange(table.samples), taken] == table.predictions[:, deepest]
        means = [right[rows].mean() for rows in members]
        assert accuracies[index] == pytest.approx(np.mean(means))
        assert agreeing[index] == pytest.approx(np.mean([agrees[rows].mean() for rows in members]))
        shares = [np.mean([(taken[rows] == k).mean() for rows in members]) for k in range(deepest)]
        assert table.exit_shares(threshold, deepest)[:deepest] == pytest.approx(shares)
        assert table.share_curve(deepest)[index][:deepest] == pytest.approx(shares)
        lost = table.group_losses(deepest, agreement=False)[:, index]
        assert sorted(lost) == pytest.approx(sorted(1 - np.array(means)))
    assert table.accuracy(deepest) == pytest.approx(
        np.mean([table.correct[rows, deepest].mean() for rows in members])
    )


def test_the_accuracy_of_a_case_weighs_groups_too() -> None:
    correct = np.repeat([True, False], [60, 20])[:, None]
    groups = np.repeat([0, 1], [60, 20]).astype(np.int32)
    confidence = np.full((80, 1), 0.9, np.float32)
    pooled = Calibration(confidence, correct, answers(correct))
    grouped = Calibration(confidence, correct, answers(correct), groups)
    assert pooled.cases(None, 0)[0].planned == 0.75
    assert grouped.cases(None, 0)[0].planned == 0.5
    assert (pooled.units, pooled.largest_group) == (80, 1)
    assert (grouped.units, grouped.largest_group) == (2, 60)


@given(grouped_tables())
def test_groups_come_back_from_the_file(table: Calibration) -> None:
    back = Calibration.from_npz(table.to_npz(), "table")
    np.testing.assert_array_equal(back.groups, table.groups)
    assert back.units == table.units


def test_groups_of_one_sample_each_are_none() -> None:
    table = constructed()
    alone = np.random.default_rng(0).permutation(table.samples).astype(np.int32)
    same = Calibration(table.confidence, table.correct, table.predictions, alone)
    assert same.groups is None
    assert same.to_npz() == table.to_npz()
    assert same.curve(2).correct.tolist() == table.curve(2).correct.tolist()


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        (np.zeros(400, np.int64), "groups must be int32"),
        (np.zeros(399, np.int32), "one a sample"),
        (np.zeros((400, 1), np.int32), "one a sample"),
        (np.full(400, -1, np.int32), "from 0 on"),
    ],
)
def test_a_file_with_wrong_groups_is_refused(groups: NDArray[np.int32], problem: str) -> None:
    table, buffer = constructed(), BytesIO()
    np.savez(
        buffer,
        confidence=table.confidence,
        correct=table.correct,
        predictions=table.predictions,
        groups=groups,
    )
    with pytest.raises(BundleError, match=problem):
        Calibration.from_npz(buffer.getvalue(), "table")
