from __future__ import annotations

import numpy as np
import pytest

from multiexit_models.calibrate.temperature import (
    GREATEST_TEMPERATURE,
    LEAST_TEMPERATURE,
    calibration_error,
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


def test_no_neighbouring_temperature_is_likelier() -> None:
    logits, labels = sampled(1.7, count=500)
    best = fit_temperature(logits, labels)

    def loss(temperature: float) -> float:
        chances = softmax(logits.astype(np.float64) / temperature)
        return float(-np.log(chances[np.arange(len(labels)), labels]).mean())

    assert loss(best) < min(loss(best * 0.99), loss(best * 1.01))


def test_scaling_logits_scales_the_temperature() -> None:
    logits, labels = sampled(1.3, count=1000)
    once, thrice = fit_temperature(logits, labels), fit_temperature(3 * logits, labels)
    assert thrice == pytest.approx(3 * once, rel=1e-5)


def test_extremes_end_at_the_limits() -> None:
    logits = np.array([[4.0, 0.0], [0.0, 4.0]])
    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(LEAST_TEMPERATURE)
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(GREATEST_TEMPERATURE)


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
