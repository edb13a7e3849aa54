"""What held-out data say of each exit: confidences, correctness and all that follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray

from delen.errors import BundleError
from delen.plan import Case

LEAST_CASES = 20
"""Fewer images than this in one case say nothing: the expected accuracy is unknown."""

THRESHOLDS: NDArray[np.float64] = np.round(np.linspace(1.0, 0.0, 201), 3)
"""The grid of confidence thresholds, safest first."""


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """Right answers among ``samples`` at each threshold of the grid: int64 ``[thresholds]``."""

    samples: int
    correct: NDArray[np.int64]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        return self.correct / self.samples


class Calibration:
    """The table sample x exit from images that were neither trained on nor tested on.

    ``confidence``: float32 ``[samples, exits]``, the largest probability after temperature
    scaling. ``correct``: bool ``[samples, exits]``. Raises ValueError where they do not fit.
    """

    def __init__(self, confidence: NDArray[np.float32], correct: NDArray[np.bool_]) -> None:
        if confidence.ndim != 2 or confidence.shape != correct.shape or not confidence.size:
            raise ValueError(
                f"confidence {confidence.shape} and correct {correct.shape} must both be "
                "[samples, exits] and not empty"
            )
        if not ((confidence >= 0) & (confidence <= 1)).all():
            raise ValueError("every confidence must be from 0 to 1")
        self.confidence = confidence
        self.correct = correct
        self._exact = confidence.astype(np.float64)
        self._best_confidence = np.maximum.accumulate(confidence, axis=1)
        self._curve = lru_cache(maxsize=None)(self._make_curve)
        self._shares = lru_cache(maxsize=256)(self._make_shares)
        self._cases = lru_cache(maxsize=256)(self._make_cases)

    @property
    def samples(self) -> int:
        return int(self.correct.shape[0])

    @property
    def exits(self) -> int:
        return int(self.correct.shape[1])

    def accuracy(self, exit: int) -> float:
        """Accuracy of ``exit`` over all inputs."""
        return float(self.correct[:, exit].mean())

    def exits_taken(self, threshold: float, deepest: int) -> NDArray[np.int64]:
        """The exit at which each sample ends: the first that is confident, else ``deepest``."""
        confident = self._exact[:, :deepest] >= threshold
        first = confident.argmax(axis=1) if deepest else np.zeros(self.samples, np.int64)
        return np.where(confident.any(axis=1), first, deepest)

    def right_answers(self, threshold: float | None, deepest: int) -> NDArray[np.bool_]:
        """Which samples are answered rightly; ``threshold`` None runs all to ``deepest``."""
        if threshold is None:
            return self.correct[:, deepest]
        taken = self.exits_taken(threshold, deepest)
        return self.correct[np.arange(self.samples), taken]

    def exit_shares(self, threshold: float, deepest: int) -> tuple[float, ...]:
        """The share of samples that ends at each exit up to ``deepest``."""
        return self._shares(threshold, deepest)

    def _make_shares(self, threshold: float, deepest: int) -> tuple[float, ...]:
        taken = self.exits_taken(threshold, deepest)
        return tuple((np.bincount(taken, minlength=deepest + 1) / self.samples).tolist())

    def curve(self, deepest: int) -> ThresholdCurve:
        """All of ``THRESHOLDS`` at once, for a network that ends at exit ``deepest``."""
        return self._curve(deepest)

    def _make_curve(self, deepest: int) -> ThresholdCurve:
        correct = np.zeros(len(THRESHOLDS), np.int64)
        for exit in range(deepest + 1):
            right = self.correct[:, exit]
            if exit:
                correct -= _count_at_least(self._best_confidence[right, exit - 1])
            if exit < deepest:
                correct += _count_at_least(self._best_confidence[right, exit])
            else:
                correct += int(right.sum())
        return ThresholdCurve(self.samples, correct)

    def cases(self, threshold: float | None, deepest: int) -> tuple[Case, ...]:
        """Expected accuracy at every exit up to ``deepest`` for each way to end there."""
        return self._cases(threshold, deepest)

    def _make_cases(self, threshold: float | None, deepest: int) -> tuple[Case, ...]:
        reached = np.ones(self.samples, bool)
        cases = []
        for exit in range(deepest + 1):
            right = self.correct[:, exit]
            if threshold is None or exit == deepest:
                here = _mean(right[reached])
                cases.append(Case(confident=None, planned=here, forced=here))
                continue
            confident = self._exact[:, exit] >= threshold
            not_confident = reached & ~confident
            cases.append(
                Case(
                    confident=_mean(right[reached & confident]),
                    planned=_mean(right[reached]),
                    forced=_mean(right[not_confident]),
                )
            )
            reached = not_confident
        return tuple(cases)

    def to_npz(self) -> bytes:
        buffer = BytesIO()
        np.savez_compressed(buffer, confidence=self.confidence, correct=self.correct)
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, raw: bytes, name: str) -> Calibration:
        """Read what ``to_npz`` wrote; BundleError naming the file ``name`` and what is wrong."""
        try:
            with np.load(BytesIO(raw), allow_pickle=False) as arrays:
                confidence, correct = arrays["confidence"], arrays["correct"]
            if confidence.dtype != np.float32 or correct.dtype != np.bool_:
                raise ValueError("confidence must be float32 and correct bool")
            return cls(confidence, correct)
        except (
            KeyError, ValueError, TypeError, EOFError, OSError, BadZipFile, ZlibError
        ) as error:  # fmt: skip
            raise BundleError(f"{name} is no calibration table: {error}") from error


def _mean(right: NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if len(right) >= LEAST_CASES else None


def _count_at_least(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many of ``values`` are at or above each of ``THRESHOLDS``."""
    ordered = np.sort(values.astype(np.float64))
    return len(ordered) - np.searchsorted(ordered, THRESHOLDS, side="left")
