from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from delen.bundle.confidence import (
    CRITERIA,
    ENTROPY,
    MARGIN,
    MAX_PROBABILITY,
    PATIENCE,
    confidences,
)
from multiexit_models.calibrate.criterion import ALLOWED_LOSS, choose_criterion, make_calibration
from multiexit_models.calibrate.temperature import softmax


def test_table_is_sample_by_exit() -> None:
    logits = np.array([[[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], [[0.0, 9.0], [0.0, 9.0], [9.0, 0.0]]])
    table = make_calibration(logits, np.array([0, 1, 1]), [1.0, 3.0])
    assert table.confidence.shape == (3, 2)
    assert table.confidence.dtype == np.float32
    assert table.correct.tolist() == [[True, False], [True, True], [False, False]]
    assert table.confidence[0] == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-3))])
    assert (table.samples, table.exits) == (3, 2)
    assert table.predictions.tolist() == [[0, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_table_has_the_confidences_of_the_criterion(criterion: str) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (3, 50, 4)).astype(np.float32)
    labels, temperatures = np.zeros(50, int), np.array([0.5, 1.0, 2.0], np.float32)
    table = make_calibration(logits, labels, temperatures.tolist(), criterion)
    scaled = softmax(logits / temperatures[:, None, None])
    assert np.array_equal(table.confidence.T, confidences(criterion, scaled))


def exits_that_know(known: Sequence[NDArray[np.bool_]], classes: int = 4) -> NDArray[np.float32]:
    """Logits of class 0 where an exit knows, else a guess of another class, less sure."""
    count = len(known[0])
    logits = np.zeros((len(known), count, classes), np.float32)
    guesses = np.random.default_rng(1).integers(1, classes, (len(known), count))
    for exit, knows in enumerate(known):
        logits[exit, knows, 0] = 6
        logits[exit, ~knows, guesses[exit, ~knows]] = 2
    return logits


def test_the_largest_probability_is_kept_where_no_criterion_saves_more() -> None:
    knows = np.random.default_rng(0).random(500) < 0.6
    logits, labels = exits_that_know([knows, np.ones(500, bool)]), np.zeros(500, int)
    choice = choose_criterion(logits, labels, [1.0, 1.0], [25, 100])
    assert choice.name == MAX_PROBABILITY
    assert set(choice.scores) == set(CRITERIA)
    score = choice.scores[MAX_PROBABILITY]
    early = knows.mean()
    assert score.accuracy >= 1 - ALLOWED_LOSS
    assert score.cost == pytest.approx(0.25 * early + (1 - early), abs=0.006)
    assert score.threshold is not None
    assert score.cost == choice.scores[MARGIN].cost == choice.scores[ENTROPY].cost


def test_cost_of_a_criterion_is_that_of_its_threshold() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 5, 2000)
    noise = np.array([3.0, 2.0, 1.0])[:, None, None]
    logits = 3 * np.eye(5)[labels] + noise * rng.normal(size=(3, 2000, 5))
    costs = [10.0, 40.0, 80.0]
    choice = choose_criterion(logits, labels, [1.0] * 3, costs)
    for name, score in choice.scores.items():
        table = make_calibration(logits, labels, [1.0] * 3, name)
        assert score.accuracy >= table.accuracy(2) - ALLOWED_LOSS
        if score.threshold is None:
            assert score.cost == 1
            continue
        taken = table.exits_taken(score.threshold, 2)
        assert score.cost == pytest.approx(np.take(costs, taken).mean() / 80, abs=1e-5)
        assert score.accuracy == table.right_answers(score.threshold, 2).mean()


def test_patience_is_chosen_where_only_agreement_tells() -> None:
    """Exits are equally sure of right answers and of guesses, and right ones alone repeat."""
    rng = np.random.default_rng(3)
    knows = rng.random(2000) < 0.6
    logits = np.zeros((4, 2000, 50), np.float32)
    for exit, of_exit in enumerate(logits):
        guess = rng.integers(1, 50, 2000)
        of_exit[np.arange(2000), np.where(knows | (exit == 3), 0, guess)] = 5
    choice = choose_criterion(logits, np.zeros(2000, int), [1.0] * 4, [40, 60, 80, 100])
    assert choice.name == PATIENCE
    assert choice.scores[PATIENCE].cost < 0.9
    assert choice.scores[MAX_PROBABILITY].threshold is None
    assert choice.scores[MAX_PROBABILITY].cost == 1


def test_an_exit_that_is_never_right_leaves_nothing_to_save() -> None:
    nothing, all_of_them = np.zeros(300, bool), np.ones(300, bool)
    logits = exits_that_know([nothing, all_of_them])
    logits[0] *= 4
    choice = choose_criterion(logits, np.zeros(300, int), [1.0, 1.0], [1, 2])
    assert choice.name == MAX_PROBABILITY
    assert choice.scores[MAX_PROBABILITY].cost == 1
    assert choice.scores[MAX_PROBABILITY].accuracy == 1


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 exits"):
        make_calibration(np.zeros((1, 3, 2)), np.zeros(3, int), [1.0, 1.0])
    with pytest.raises(ValueError, match="n = 4"):
        make_calibration(np.zeros((1, 3, 2)), np.zeros(4, int), [1.0])
