"""The calibration table: each exit's confidences and correctness on held-out data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import combinations
from typing import Any
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

Groups = NDArray[np.int32]
"""The group of each sample (a track, a speaker), as numbers from 0 on."""


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """Right answers among ``samples`` at each threshold of the grid: ``[thresholds]``.

    An answer is right that equals the label, or on another curve the deepest exit's answer. They
    are whole numbers, or, in a table with groups, sums of the samples' weights.
    """

    samples: int
    correct: NDArray[Any]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        return self.correct / self.samples


class Calibration:
    """The table sample x exit of samples that were used neither for training nor for test.

    All are ``[samples, exits]``. ``confidence``: float32, of the bundle's criterion after
    temperature scaling. ``correct``: bool, whether the exit's answer is the label.
    ``predictions``: int32, the class that the exit answers, which takes no label to know.
    ``groups``: int32 ``[samples]``, where samples of one group (frames of a track, recordings of
    a speaker) are not independent of each other. All shares and accuracies are then means over
    the groups of each group's mean: every group weighs the same, whatever its size. Groups of one
    sample each are none. Raises ValueError where they do not fit.
    """

    def __init__(
        self,
        confidence: NDArray[np.float32],
        correct: NDArray[np.bool_],
        predictions: NDArray[np.int32],
        groups: Groups | None = None,
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
        self.groups = None if groups is None else _check_groups(groups, len(confidence))
        self.weights = None if self.groups is None else group_weights(self.groups)
        self.group_sizes = np.bincount(
            np.zeros(0, np.int32) if self.groups is None else self.groups
        )
        self._order = np.random.default_rng(0).permutation(len(self.group_sizes))
        self._exact = confidence.astype(np.float64)
        self._best_confidence = np.maximum.accumulate(confidence, axis=1)
        self._curve = lru_cache(maxsize=None)(self._make_curve)
        self._share_curve = lru_cache(maxsize=None)(self._make_share_curve)
        self._agreement = lru_cache(maxsize=None)(self._make_agreement)
        self._group_losses = lru_cache(maxsize=None)(self._make_group_losses)
        self._shares = lru_cache(maxsize=256)(self._make_shares)
        self._cases = lru_cache(maxsize=256)(self._make_cases)

    @property
    def samples(self) -> int:
        return int(self.correct.shape[0])

    @property
    def exits(self) -> int:
        return int(self.correct.shape[1])

    @property
    def units(self) -> int:
        """How many independent observations there are: groups, or without them samples."""
        return self.samples if self.groups is None else len(self.group_sizes)

    @property
    def largest_group(self) -> int:
        """The number of samples in the largest group; 1 without groups."""
        return int(self.group_sizes.max(initial=1))

    def accuracy(self, exit: int) -> float:
        """Accuracy of ``exit`` over all inputs."""
        return float(np.average(self.correct[:, exit], weights=self.weights))

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
        ended = np.bincount(taken, self.weights, minlength=deepest + 1)
        return tuple((ended / self.samples).tolist())

    def share_curve(self, deepest: int) -> NDArray[np.float64]:
        """``exit_shares`` at all of ``THRESHOLDS`` at once: ``[thresholds, deepest + 1]``."""
        return self._share_curve(deepest)

    def _make_share_curve(self, deepest: int) -> NDArray[np.float64]:
        ended = np.zeros((len(THRESHOLDS), deepest + 2))
        for exit in range(deepest):
            ended[:, exit + 1] = _count_at_least(self._best_confidence[:, exit], self.weights)
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
        dtype = np.int64 if self.weights is None else np.float64
        correct: NDArray[Any] = np.zeros(len(THRESHOLDS), dtype)
        for exit in range(deepest + 1):
            right = right_at[:, exit]
            weights = None if self.weights is None else self.weights[right]
            if exit:
                correct -= _count_at_least(self._best_confidence[right, exit - 1], weights)
            if exit < deepest:
                correct += _count_at_least(self._best_confidence[right, exit], weights)
            else:
                correct += int(right.sum()) if weights is None else weights.sum()
        return ThresholdCurve(self.samples, np.clip(correct, 0, self.samples))

    def group_losses(self, deepest: int, agreement: bool) -> NDArray[np.float64]:
        """The share of each group's answers that are wrong or, for ``agreement``, that differ from
        those of exit ``deepest``, at all of ``THRESHOLDS``: ``[groups, thresholds]``. The table
        must have groups."""
        return self._group_losses(deepest, agreement)

    def _make_group_losses(self, deepest: int, agreement: bool) -> NDArray[np.float64]:
        lost_at = self.predictions != self.predictions[:, [deepest]] if agreement else ~self.correct
        rows, columns = np.arange(self.samples), []
        for threshold in THRESHOLDS.tolist():
            lost = lost_at[rows, self.exits_taken(threshold, deepest)]
            columns.append(self.group_means(lost))
        return np.stack(columns, axis=1)

    def group_means(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The mean of ``values`` ``[samples]`` in each group, the groups in the table's order.

        It is the same for all values, and at random, so that tests which go over the groups do
        not meet one class after the other. The table must have groups.
        """
        assert self.groups is not None
        means: NDArray[np.float64] = np.bincount(self.groups, values) / self.group_sizes
        return means[self._order]

    def cases(self, threshold: float | None, deepest: int) -> tuple[Case, ...]:
        """Expected accuracy at every exit up to ``deepest`` for each way to end there."""
        return self._cases(threshold, deepest)

    def _make_cases(self, threshold: float | None, deepest: int) -> tuple[Case, ...]:
        reached = np.ones(self.samples, bool)
        cases = []
        for exit in range(deepest + 1):
            if threshold is None or exit == deepest:
                here = self._accuracy_where(reached, exit)
                cases.append(Case(confident=None, planned=here, forced=here))
                continue
            confident = self._exact[:, exit] >= threshold
            not_confident = reached & ~confident
            cases.append(
                Case(
                    confident=self._accuracy_where(reached & confident, exit),
                    planned=self._accuracy_where(reached, exit),
                    forced=self._accuracy_where(not_confident, exit),
                )
            )
            reached = not_confident
        return tuple(cases)

    def _accuracy_where(self, chosen: NDArray[np.bool_], exit: int) -> float | None:
        right = self.correct[chosen, exit]
        if len(right) < LEAST_CASES:
            return None
        weights = None if self.weights is None else self.weights[chosen]
        return float(np.average(right, weights=weights))

    def to_npz(self) -> bytes:
        arrays: dict[str, Any] = {
            "confidence": self.confidence,
            "correct": self.correct,
            "predictions": self.predictions,
        }
        if self.groups is not None:
            arrays["groups"] = self.groups
        buffer = BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, raw: bytes, name: str) -> Calibration:
        """Read what ``to_npz`` wrote; BundleError naming the file ``name`` and what is wrong."""
        try:
            with np.load(BytesIO(raw), allow_pickle=False) as arrays:
                confidence = arrays["confidence"]
                correct, predictions = arrays["correct"], arrays["predictions"]
                groups = arrays.get("groups")
            dtypes = (confidence.dtype, correct.dtype, predictions.dtype)
            if dtypes != (np.dtype(np.float32), np.dtype(bool), np.dtype(np.int32)):
                raise ValueError("confidence must be float32, correct bool and predictions int32")
            if groups is not None and groups.dtype != np.dtype(np.int32):
                raise ValueError("groups must be int32")
            return cls(confidence, correct, predictions, groups)
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


def _check_groups(groups: Groups, samples: int) -> Groups | None:
    """``groups`` numbered from 0 without gaps; None where each has one sample."""
    if groups.shape != (samples,):
        raise ValueError(f"groups {groups.shape} must be one a sample, [{samples}]")
    if (groups < 0).any():
        raise ValueError("every group must be a number from 0 on")
    names, numbered = np.unique(groups, return_inverse=True)
    return None if len(names) == samples else numbered.reshape(-1).astype(np.int32)


def group_weights(groups: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """A weight for each sample: the same sum for each of the ``groups``, 1 on average."""
    _, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = len(groups) / (len(sizes) * sizes[members.reshape(-1)])
    return weights


def _count_at_least(
    values: NDArray[np.float32], weights: NDArray[np.float64] | None
) -> NDArray[Any]:
    """How many of ``values``, or what weight of them, is at or above each of ``THRESHOLDS``."""
    exact = values.astype(np.float64)
    if weights is None:
        ordered = np.sort(exact)
        return len(ordered) - np.searchsorted(ordered, THRESHOLDS, side="left")
    order = np.argsort(exact)
    below = np.concatenate(([0.0], np.cumsum(weights[order])))
    first = np.searchsorted(exact[order], THRESHOLDS, side="left")
    at_least: NDArray[np.float64] = below[-1] - below[first]
    return at_least
