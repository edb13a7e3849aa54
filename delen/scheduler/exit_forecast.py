"""The expected accuracy of every later exit, given the confidence at one, in a table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from delen.bundle.calibration import Calibration

STEPS = 1024
"""Confidences are distinguished in so many steps."""

_EDGE = 1e-3
_ROUNDS = 50
_CLOSE = 1e-9


class ExitForecast:
    """Expected accuracy of every exit given the confidence at an earlier one, or at itself.

    From the calibration table, by Platt's two-parameter logistic curve (1999) over the log odds of
    the confidence. Bins would be exact in the limit. What matters is a difference of a few tenths
    of a point between two exits, and bins of a few hundred samples are noisier than that.
    """

    def __init__(self, calibration: Calibration) -> None:
        exits = calibration.exits
        self._before = tuple(calibration.accuracy(exit) for exit in range(exits))
        grid = _log_odds(np.linspace(0.0, 1.0, STEPS + 1))
        self._curves: list[list[list[float]]] = []
        for exit in range(exits):
            odds = _log_odds(calibration.confidence[:, exit].astype(np.float64))
            fits = [_fit(odds, calibration.correct[:, target]) for target in range(exit, exits)]
            self._curves.append([_logistic(fit[0] + fit[1] * grid).tolist() for fit in fits])

    def accuracy(self, exit: int, confidence: float, target: int) -> float:
        """The accuracy of exit ``target`` for a task with ``confidence`` at ``exit`` (-1: none).

        ValueError where ``target`` comes before ``exit``."""
        if exit < 0:
            return self._before[target]
        if target < exit:
            raise ValueError(
                f"exit {target} comes before exit {exit}, whose confidence says nothing of it"
            )
        return self._curves[exit][target - exit][round(confidence * STEPS)]


def _log_odds(confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = np.log((confidence + _EDGE) / (1 - confidence + _EDGE))
    return odds


def _logistic(value: NDArray[np.float64]) -> NDArray[np.float64]:
    share: NDArray[np.float64] = 1 / (1 + np.exp(-value))
    return share


def _fit(odds: NDArray[np.float64], correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Offset and slope of the likeliest curve, by Newton's method; a weak prior holds them at
    0 and 1, so that an exit that is always right or always wrong has a finite fit."""
    features = np.stack([np.ones_like(odds), odds])
    prior = np.array([0.0, 1.0])
    fit, loss = prior, _loss(prior, features, correct, prior)
    for _ in range(_ROUNDS):
        share = _logistic(fit @ features)
        gradient = features @ (share - correct) + (fit - prior)
        curvature = (features * share * (1 - share)) @ features.T + np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while (tried := _loss(fit - step, features, correct, prior)) > loss:
            step = step / 2
        fit = fit - step
        if loss - tried < _CLOSE:
            break
        loss = tried
    return fit


def _loss(
    fit: NDArray[np.float64],
    features: NDArray[np.float64],
    correct: NDArray[np.bool_],
    prior: NDArray[np.float64],
) -> float:
    """The negative log likelihood of ``fit``, with its prior."""
    value = fit @ features
    misfit = np.logaddexp(0.0, np.where(correct, -value, value)).sum()
    return float(misfit + ((fit - prior) ** 2).sum() / 2)
