"""Calibration tables for networks of which only the exits' accuracies are known."""

from __future__ import annotations

from math import erfc, sqrt

import numpy as np
from numpy.typing import NDArray

from delen.bundle.calibration import Calibration

SHARED_DIFFICULTY = 0.87
EVIDENCE = 0.75
OWN_EVIDENCE = 0.1
SHARED_NOISE = 0.7
"""Fitted to the calibration table of the shipped CIFAR-10 network (five exits, 81 to 93 %). It
has, and the model gives for its accuracies: right at some exit 95.8 and 95.6 % of the samples;
confident (0.9) at exit 0 51 and 53 %, which are right to .97 and .97, the others to .65 and .64;
accuracy at threshold 0.9 .914 and .903; of the answer of the most confident exit .912 and .921."""


def synthetic(
    accuracies: tuple[float, ...], samples: int, seed: int, difficulty: float = SHARED_DIFFICULTY
) -> Calibration:
    """A calibration table with ``accuracies`` (rounded to whole samples).

    A one-factor Gaussian copula. Sample i has a difficulty ``z_i``, and is as hard for exit k as
    ``h_ik = sqrt(difficulty) z_i + sqrt(1 - difficulty) e_ik``, all standard normal; exit k is
    right on the share ``accuracies[k]`` of the samples that are easiest for it. So exits are
    mostly right together, and a few per cent of samples are right early and wrong at the end.

    An exit does not know ``h_ik``; it sees evidence ``v_ik``, which is ``z_i``, OWN_EVIDENCE of
    ``e_ik`` and noise, standard normal in sum, and has correlation EVIDENCE with ``h_ik``. Given
    ``v_ik``, ``h_ik`` is normal with mean ``EVIDENCE v_ik`` and variance ``1 - EVIDENCE^2``: the
    confidence is the probability that it lies below the exit's limit, and therefore calibrated.
    Exits see little of what is theirs alone, and they share SHARED_NOISE of their noise's variance.
    Otherwise the most confident of several exits would be right much more often than the last one,
    which is not the case in the shipped networks.

    Right answers are class 0. Wrong ones are class 1 at every exit: exits that are wrong agree.
    ValueError for an accuracy that leaves no sample right, or none wrong.
    """
    if not 0.8 <= difficulty < 1:
        raise ValueError(f"difficulty is {difficulty}; it must be from 0.8 to below 1")
    rng = np.random.default_rng(seed)
    shape = (samples, len(accuracies))
    common, own = rng.normal(size=(samples, 1)), rng.normal(size=shape)
    hard = sqrt(difficulty) * common + sqrt(1 - difficulty) * own
    of_common = (EVIDENCE - OWN_EVIDENCE * sqrt(1 - difficulty)) / sqrt(difficulty)
    noise = sqrt(SHARED_NOISE) * rng.normal(size=(samples, 1))
    noise = noise + sqrt(1 - SHARED_NOISE) * rng.normal(size=shape)
    unseen = sqrt(1 - of_common**2 - OWN_EVIDENCE**2)
    seen = of_common * common + OWN_EVIDENCE * own + unseen * noise
    rest = sqrt(1 - EVIDENCE**2)
    confidence = np.empty(shape, np.float32)
    correct = np.empty(shape, bool)
    for exit, accuracy in enumerate(accuracies):
        right = round(accuracy * samples)
        if not 0 < right < samples:
            raise ValueError(
                f"accuracy {accuracy} of exit {exit} means {right} of {samples} samples right; "
                "some must be, and some must not"
            )
        ordered = np.sort(hard[:, exit])
        limit = (ordered[right - 1] + ordered[right]) / 2
        correct[:, exit] = hard[:, exit] < limit
        confidence[:, exit] = _normal_cdf((limit - EVIDENCE * seen[:, exit]) / rest)
    return Calibration(confidence, correct, (~correct).astype(np.int32))


def _normal_cdf(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([0.5 * erfc(-value / sqrt(2)) for value in values.tolist()])
