from __future__ import annotations

import numpy as np
import pytest

from multiexit_models.calibrate.temperature import (
    GREATEST_TEMPERATURE,
    LEAST_TEMPERATURE,
    calibration_error,
    calibration_error_interval,
    fit_temperature,
    softmax,
)


def sampled(temperature: float, count: int = 20_000, seed: int = 0):
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, 5)).astype(np.float32)
    chances = softmax(logits.astype(np.float64) / temperature).cumsum(axis=1)
    labels = (rng.random((count, 1)) > chances).sum(axis=1).clip(max=4)
    return logits, labels


@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_temperature_is_found_again(truth: float) -> None:
    assert fit_temperature(*sampled(truth)) == pytest.approx(truth, rel=0.04)


def test_no_neighbouring_temperature_is_more_probable() -> None:
    logits, labels = sampled(1.7, count=500)
    best = fit_temperature(logits, labels)

    def loss(temperature: float) -> float:
        chances = softmax(logits.astype(np.float64) / temperature)
        likelihood = np.log(chances[np.arange(len(labels)), labels]).sum()
        return float(np.log(temperature) ** 2 / 2 - likelihood)

    assert loss(best) < min(loss(best * 0.99), loss(best * 1.01))


def test_many_labels_outweigh_the_prior() -> None:
    logits, labels = sampled(1.3, count=10_000)
    once = fit_temperature(logits, labels)
    for factor in (0.02, 30):
        assert fit_temperature(factor * logits, labels) == pytest.approx(factor * once, rel=0.01)


@pytest.mark.parametrize("count", [20, 60, 500])
def test_validation_without_an_error_leaves_wrong_answers_unsure(count: int) -> None:
    margins = np.random.default_rng(0).uniform(0, 10, count)
    logits = np.stack([margins, np.zeros(count)], axis=1)
    temperature = fit_temperature(logits, np.zeros(count, np.int64))
    assert temperature > 5 * LEAST_TEMPERATURE
    expected_errors = 1 - softmax(logits / temperature).max(axis=1)
    assert 0.1 < expected_errors.sum() < 3
    assert softmax(np.array([0.2, 0.0]) / temperature).max() < 0.95


def test_labels_that_say_nothing_leave_the_temperature_of_the_training() -> None:
    logits = np.array([[40.0, 0.0], [0.0, 40.0]])
    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(1, abs=0.01)
    assert 10 < fit_temperature(logits, np.array([1, 0])) <= GREATEST_TEMPERATURE


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.35, 0.35])
    correct = np.array([True, True, True, False])
    assert calibration_error(confidence, correct) == pytest.approx((2 * 0.05 + 2 * 0.15) / 4)
    assert calibration_error(np.array([1.0]), np.array([True])) == 0


def test_fitted_temperature_lowers_the_calibration_error() -> None:
    logits, labels = sampled(2.0)
    correct = logits.argmax(axis=1) == labels
    fitted = fit_temperature(logits, labels)
    before, after = (
        calibration_error(softmax(logits / t).max(axis=1), correct) for t in (1.0, fitted)
    )
    assert before > 0.1
    assert after < 0.02


@pytest.mark.parametrize("overconfidence", [0.0, 0.05, 0.2])
def test_interval_covers_the_true_calibration_error(overconfidence: float) -> None:
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        confidence = rng.choice([0.55, 0.65, 0.75, 0.85, 0.95], 200)
        correct = rng.random(200) < confidence - overconfidence
        low, high = calibration_error_interval(confidence, correct)
        covered += low <= overconfidence <= high
    assert covered >= 88


def test_interval_is_the_same_each_time() -> None:
    confidence, correct = np.linspace(0.5, 1, 50), np.arange(50) % 3 > 0
    once = calibration_error_interval(confidence, correct)
    assert once == calibration_error_interval(confidence, correct)
    assert once != calibration_error_interval(confidence, correct, seed=1)


def test_interval_over_groups_is_wider_where_groups_are_alike() -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(60), 20).astype(np.int32)
    confidence = np.full(1200, 0.8)
    correct = rng.random(1200) < rng.choice([0.7, 0.9], 60)[groups]
    _, high = calibration_error_interval(confidence, correct)
    low, higher = calibration_error_interval(confidence, correct, groups=groups)
    assert high < higher
    assert 0 <= low < higher
