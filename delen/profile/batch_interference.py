"""Which batch sizes slow which others: a predictor fitted to pairs that were measured (BCEdge).

``log(factor) = c₀ + c₁ log₂(own) + c₂ log₂(other) + c₃ log₂(own) log₂(other)`` by least squares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log2

import numpy as np
from numpy.typing import NDArray

Pairs = Mapping[tuple[int, int], float]
"""How many times longer a batch of the first size takes while one of the second runs beside it."""


@dataclass(frozen=True, slots=True)
class BatchInterference:
    """``held_out`` is the mean relative error on pairs that were left out of the fit in turn, and
    ``held_out_of_one`` that of one factor for all pairs, their geometric mean."""

    coefficients: tuple[float, ...]
    held_out: float
    held_out_of_one: float

    def at(self, own: int, other: int) -> float:
        """The factor for a batch of ``own`` beside one of ``other`` samples, at least 1."""
        return max(1.0, exp(float(np.dot(self.coefficients, _terms(own, other)))))


def fit(pairs: Pairs) -> BatchInterference:
    """ValueError for fewer than three batch sizes: nothing could be left out then."""
    if len({own for own, _ in pairs}) < 3:
        raise ValueError("the interference of batch sizes needs pairs of at least three of them")
    terms = np.array([_terms(*pair) for pair in pairs])
    logarithms = np.log(list(pairs.values()))
    return BatchInterference(
        tuple(_solve(terms, logarithms).tolist()),
        _held_out(terms, logarithms),
        _held_out(np.ones((len(pairs), 1)), logarithms),
    )


def _terms(own: int, other: int) -> tuple[float, ...]:
    return 1.0, log2(own), log2(other), log2(own) * log2(other)


def _solve(terms: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.lstsq(terms, values, rcond=None)[0].astype(np.float64)


def _held_out(terms: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    errors = []
    for left_out in range(len(values)):
        kept = np.arange(len(values)) != left_out
        said = terms[left_out] @ _solve(terms[kept], values[kept])
        errors.append(abs(exp(said - values[left_out]) - 1))
    return float(np.mean(errors))
