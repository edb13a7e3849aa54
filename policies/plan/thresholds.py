"""Confidence thresholds with a guarantee, from the calibration table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.bundle.calibration import THRESHOLDS, Calibration
from policies.plan.risk import (
    betting_bound,
    hoeffding_bentkus_p,
    least_groups,
    least_samples,
    most_errors,
    most_errors_bounded,
    shown_by_betting,
    upper_bound_bounded,
)

LTT = "ltt"
UCB = "ucb"
PROCEDURES: Mapping[str, Callable[[int, float, float], int]] = {
    LTT: most_errors,
    UCB: most_errors_bounded,
}
"""How a threshold is shown to be safe, as the most errors that its samples may have.

``ltt``: Learn then Test (Angelopoulos et al., 2110.01052, section 3) with fixed-sequence testing:
from the safest threshold down, each is tested for "the risk is above what is allowed" by the exact
binomial tail of its errors, and the last one before the first that is not rejected is taken. The
sequence is fixed in advance, so no correction for the many thresholds is due.

``ucb``: upper confidence bounds (Bates et al., "Distribution-Free, Risk-Controlling Prediction
Sets", J. ACM 68, 2021, section 2): the lowest threshold such that the bound of the risk is within
what is allowed there and at all safer ones. The bound is by Hoeffding and Bentkus and holds for any
bounded loss. It is within what is allowed exactly if its p-value there is at most delta, so it need
not be computed.

Both control the risk even if it is not monotone: to end at an unsafe threshold, the first unsafe
one has to be accepted, and its own test does that with probability delta at most.

Where the table has groups, both have the mean loss of each group for a sample: ``ltt`` tests by
betting (``risk.betting_bound``), ``ucb`` by Hoeffding and Bentkus as before. The risk is then the
mean over groups of a group's mean loss, and the groups must be drawn independently of each other.
"""

_GROUP_BOUNDS: Mapping[str, Callable[[NDArray[np.float64], float], float]] = {
    LTT: betting_bound,
    UCB: lambda losses, delta: upper_bound_bounded(float(losses.mean()), len(losses), delta),
}


@dataclass(frozen=True, slots=True)
class Threshold:
    """A confidence at which to stop, and the accuracy expected over all requests that use it."""

    value: float
    accuracy: float


def certified_threshold(
    calibration: Calibration, deepest: int, floor: float, level: float, procedure: str = LTT
) -> Threshold | None:
    """The lowest threshold whose accuracy keeps ``floor`` with probability ``level``.

    The probability is over the draw of the calibration samples. ``procedure`` is one of PROCEDURES.
    None if the safest threshold already fails: the floor cannot be certified.
    """
    safe = _lowest_safe(calibration, deepest, 1 - floor, level, procedure, agreement=False)
    return None if safe is None else _threshold(calibration, deepest, safe)


def agreement_threshold(
    calibration: Calibration, deepest: int, tolerance: float, level: float, procedure: str = LTT
) -> Threshold | None:
    """The lowest threshold whose answers differ from those of ``deepest`` for at most the share
    ``tolerance`` of inputs, with probability ``level``. It needs no labels.

    None if not even the safest is certified: then only running everything to ``deepest`` agrees.
    """
    safe = _lowest_safe(calibration, deepest, tolerance, level, procedure, agreement=True)
    return None if safe is None else _threshold(calibration, deepest, safe)


def highest_floor(
    calibration: Calibration, deepest: int, level: float, procedure: str = LTT
) -> float:
    """The highest floor that ``certified_threshold`` certifies: the lower confidence bound.

    Rounded down to four decimals, so that a request for just this floor is feasible.
    """
    if calibration.groups is not None:
        losses = calibration.group_losses(deepest, agreement=False)[:, 0]
        return _floor_below(_GROUP_BOUNDS[procedure](losses, 1 - level))
    curve = calibration.curve(deepest)
    return _highest_floor(int(curve.samples - curve.correct[0]), curve.samples, level, procedure)


def floor_without_error(calibration: Calibration, level: float, procedure: str = LTT) -> float:
    """The highest floor that a table of so many samples or groups can certify at all, which is
    without an error; rounded as ``highest_floor``."""
    if calibration.groups is None:
        return _highest_floor(0, calibration.samples, level, procedure)
    return _floor_below(_GROUP_BOUNDS[procedure](np.zeros(calibration.units), 1 - level))


def _highest_floor(errors: int, samples: int, level: float, procedure: str) -> float:
    low, high = 0, 10_000
    while high - low > 1:
        middle = (low + high) // 2
        if errors <= PROCEDURES[procedure](samples, 1 - middle / 10_000, 1 - level):
            low = middle
        else:
            high = middle
    return low / 10_000


def _floor_below(risk: float) -> float:
    """The highest floor, in four decimals, of which ``1 - floor`` is not below ``risk``."""
    floor = int(10_000 * (1 - risk))
    return (floor if risk <= 1 - floor / 10_000 else floor - 1) / 10_000


def samples_needed(floor: float, level: float, accuracy: float = 1.0) -> float:
    """How many calibration samples certify ``floor`` if ``accuracy`` of them are right.

    Infinite for a floor that is not below the accuracy. Without an error it is the least possible
    number: log(1 - level) / log(floor).
    """
    return least_samples(1 - accuracy, 1 - floor, 1 - level)


def units_needed(grouped: bool, floor: float, level: float, procedure: str = LTT) -> float:
    """The least number of samples, or of groups, that certify ``floor``: without an error."""
    if grouped and procedure == LTT:
        return least_groups(1 - floor, 1 - level)
    return samples_needed(floor, level)


def lossless_threshold(
    calibration: Calibration, deepest: int, tolerance: float, level: float
) -> Threshold:
    """The lowest threshold that loses at most ``tolerance`` of accuracy against ``deepest``.

    Paired on the calibration samples, or on their groups' means: the upper confidence bound
    (normal approximation, at ``level``) of the mean loss is within the tolerance, at this
    threshold and all above it.
    """
    last_right = calibration.correct[:, deepest]
    chosen = 0
    for index, value in enumerate(THRESHOLDS):
        right = calibration.right_answers(float(value), deepest)
        loss: NDArray[Any] = last_right.astype(np.int8) - right.astype(np.int8)
        if calibration.groups is not None:
            loss = calibration.group_means(loss)
        margin = NormalDist().inv_cdf(level) * float(loss.std()) / sqrt(len(loss))
        if float(loss.mean()) + margin > tolerance:
            break
        chosen = index
    return _threshold(calibration, deepest, chosen)


def _lowest_safe(
    calibration: Calibration,
    deepest: int,
    allowed: float,
    level: float,
    procedure: str,
    agreement: bool,
) -> int | None:
    """The index of the lowest threshold that is safe along with all above it; None if none is."""
    if calibration.groups is None:
        curve = (calibration.agreement if agreement else calibration.curve)(deepest)
        errors = curve.samples - curve.correct
        passed = errors <= PROCEDURES[procedure](curve.samples, allowed, 1 - level)
    else:
        losses = calibration.group_losses(deepest, agreement)
        passed = _groups_pass(losses, allowed, level, procedure)
    accepted = len(passed) if passed.all() else int(np.argmin(passed))
    return accepted - 1 if accepted else None


def _groups_pass(
    losses: NDArray[np.float64], allowed: float, level: float, procedure: str
) -> NDArray[np.bool_]:
    """Whether each threshold alone is safe, by the losses of groups ``[groups, thresholds]``."""
    if procedure == LTT:
        return shown_by_betting(losses, allowed, 1 - level)
    p_values = [hoeffding_bentkus_p(mean, len(losses), allowed) for mean in losses.mean(axis=0)]
    return np.array(p_values) <= 1 - level


def _threshold(calibration: Calibration, deepest: int, index: int) -> Threshold:
    return Threshold(float(THRESHOLDS[index]), float(calibration.curve(deepest).accuracy[index]))
