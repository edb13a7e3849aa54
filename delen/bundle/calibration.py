"""The calibration table: each exit's confidences and correctness on held-out data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import combinations
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray

from delen.core.plan import Case
from delen.errors import BundleError

LEAST_CASES = 20
"""With fewer samples than this in one case, its expected accuracy is unknown."""

THRESHOLDS: NDArray[np.float64] = np.round(np.linspace(1.0, 0.0, 201), 3)
"""The grid of confidence thresholds, safest first."""


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """Right answers among ``samples`` at each threshold of the grid: int64 ``[thresholds]``.

    An answer is right that equals the label, or on another curve the deepest exit's answer.
    """

    samples: int
    correct: NDArray[np.int64]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        return self.correct / self.samples


class Calibration:
    """The table sample x exit of samples that were used neither for training nor for test.

    All are ``[samples, exits]``. ``confidence``: float32, of the bundle's criterion after
    temperature scaling. ``correct``: bool, whether the exit's answer is the label.
    ``predictions``: int32, the class that the exit answers, which takes no label to know. Raises
    ValueError where they do not fit.
    """

    def __init__(
        self,
        confidence: NDArray[np.float32],
        correct: NDArray[np.bool_],
        predictions: NDArray[np.int32],
    ) -> None:
        if confidence.ndim != 2 or not confidence.size:
            raise ValueError(f"confidence {confidence.shape} must be [samples, exits], not empty")
        if correct.shape != confidence.shape or predictions.shape != confidence.shape:
            raise ValueError(
                f"confidence {confidence.shape}, correct {correct.shape} and predictions "
                f"{predictions.shape} must all be [samples, exits]"
            )
        if not ((confidence >= 0) & (confidence <= 1)).all():
            raise ValueError("every confidence must be from 0 to 1")
        _check_answers(correct, predictions)
        self.confidence = confidence
        self.correct = correct
        self.predictions = predictions
        self._exact = confidence.astype(np.float64)
        self._best_confidence = np.maximum.accumulate(confidence, axis=1)
        self._curve = lru_cache(maxsize=None)(self._make_curve)
        self._share_curve = lru_cache(maxsize=None)(self._make_share_curve)
        self._agreement = lru_cache(maxsize=None)(self._make_agreement)
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

    def share_curve(self, deepest: int) -> NDArray[np.float64]:
        """``exit_shares`` at all of ``THRESHOLDS`` at once: ``[thresholds, deepest + 1]``."""
        return self._share_curve(deepest)

    def _make_share_curve(self, deepest: int) -> NDArray[np.float64]:
        ended = np.zeros((len(THRESHOLDS), deepest + 2))
        for exit in range(deepest):
            ended[:, exit + 1] = _count_at_least(self._best_confidence[:, exit])
        ended[:, -1] = self.samples
        shares: NDArray[np.float64] = np.diff(ended, axis=1) / self.samples
        return shares

    def curve(self, deepest: int) -> ThresholdCurve:
        """All of ``THRESHOLDS`` at once, for a network that ends at exit ``deepest``."""
        return self._curve(deepest)

    def agreement(self, deepest: int) -> ThresholdCurve:
        """As ``curve``, where an answer is right that equals that of exit ``deepest``."""
        return self._agreement(deepest)

    def _make_curve(self, deepest: int) -> ThresholdCurve:
        return self._count(self.correct, deepest)

    def _make_agreement(self, deepest: int) -> ThresholdCurve:
        return self._count(self.predictions == self.predictions[:, [deepest]], deepest)

    def _count(self, right_at: NDArray[np.bool_], deepest: int) -> ThresholdCurve:
        correct = np.zeros(len(THRESHOLDS), np.int64)
        for exit in range(deepest + 1):
            right = right_at[:, exit]
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
        np.savez_compressed(
            buffer,
            confidence=self.confidence,
            correct=self.correct,
            predictions=self.predictions,
        )
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, raw: bytes, name: str) -> Calibration:
        """Read what ``to_npz`` wrote; BundleError naming the file ``name`` and what is wrong."""
        try:
            with np.load(BytesIO(raw), allow_pickle=False) as arrays:
                confidence = arrays["confidence"]
                correct, predictions = arrays["correct"], arrays["predictions"]
            dtypes = (confidence.dtype, correct.dtype, predictions.dtype)
            if dtypes != (np.dtype(np.float32), np.dtype(bool), np.dtype(np.int32)):
                raise ValueError("confidence must be float32, correct bool and predictions int32")
            return cls(confidence, correct, predictions)
        except (
            KeyError, ValueError, TypeError, EOFError, OSError, BadZipFile, ZlibError
        ) as error:  # fmt: skip
            raise BundleError(f"{name} is not a calibration table: {error}") from error


def _check_answers(correct: NDArray[np.bool_], predictions: NDArray[np.int32]) -> None:
    """ValueError where ``correct`` contradicts ``predictions`` whatever the labels."""
    if (predictions < 0).any():
        raise ValueError("every prediction must be a class from 0 on")
    exits = correct.shape[1]
    for one, other in combinations(range(exits), 2):
        same = predictions[:, one] == predictions[:, other]
        both_right = correct[:, one] & correct[:, other]
        if (same & (correct[:, one] != correct[:, other])).any() or (both_right & ~same).any():
            raise ValueError(f"correct and predictions of exits {one} and {other} contradict")


def _mean(right: NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if len(right) >= LEAST_CASES else None


def _count_at_least(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many of ``values`` are at or above each of ``THRESHOLDS``."""
    ordered = np.sort(values.astype(np.float64))
    return len(ordered) - np.searchsorted(ordered, THRESHOLDS, side="left")
