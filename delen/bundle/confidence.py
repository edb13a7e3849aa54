"""How sure a classifier is of an answer: one number from 0 to 1.

Each criterion is a family of thresholds: a job stops where its number reaches the threshold.
The first three are computed from one exit's probabilities, inside the exported graph:

- ``max_probability``: the largest probability (Teerapittayanon et al., BranchyNet, ICPR 2016, use
  its entropy form; Huang et al., MSDNet, ICLR 2018, this one);
- ``margin``: the largest probability less the second largest;
- ``entropy``: 1 - H / log(classes), 1 where one class has all probability;
- ``patience``: how many earlier exits in a row gave this exit's answer, as a share of all earlier
  exits there can be (Zhou et al., "BERT loses patience", NeurIPS 2020). It needs the answers of
  the exits before, so the code that runs the network counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_PROBABILITY = "max_probability"
MARGIN = "margin"
ENTROPY = "entropy"
PATIENCE = "patience"
CRITERIA = (MAX_PROBABILITY, MARGIN, ENTROPY, PATIENCE)

Probabilities = NDArray[np.floating[Any]]


def confidences(criterion: str, probabilities: Probabilities) -> NDArray[np.float32]:
    """The confidences ``[exits, n]`` of ``probabilities`` ``[exits, n, classes]``.

    Raises ValueError, with the list of criteria, for another name.
    """
    if criterion == MAX_PROBABILITY:
        values = probabilities.max(axis=2)
    elif criterion == MARGIN:
        best = np.partition(probabilities, -2, axis=2)[:, :, -2:]
        values = best[:, :, 1] - best[:, :, 0]
    elif criterion == ENTROPY:
        logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
        values = 1 + (probabilities * logs).sum(axis=2) / np.log(probabilities.shape[2])
    elif criterion == PATIENCE:
        values = _patience(probabilities.argmax(axis=2))
    else:
        raise ValueError(f"the criterion must be one of {', '.join(CRITERIA)}, not {criterion!r}")
    bounded: NDArray[np.float32] = np.clip(values, 0, 1).astype(np.float32)
    return bounded


def patience(streak: int, exits: int) -> float:
    """The confidence of an answer that ``streak`` earlier exits in a row gave too."""
    return float(np.float32(streak / max(1, exits - 1)))


def _patience(answers: NDArray[np.int64]) -> NDArray[np.float64]:
    streaks = np.zeros(answers.shape, np.int64)
    for exit in range(1, len(answers)):
        same = answers[exit] == answers[exit - 1]
        streaks[exit] = np.where(same, streaks[exit - 1] + 1, 0)
    return streaks / max(1, len(answers) - 1)
