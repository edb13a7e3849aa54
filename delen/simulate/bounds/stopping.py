"""What device time buys a policy that knows of a sample only what its exits have said so far.

A stopping rule runs a sample to exit 0, and on from exit k while the confidence there is in an
interval: below it the sample is hopeless, above it sure enough. Its answer is of the last exit that
ran. For a price of time each interval is fitted backwards from the last exit, so that the accuracy
gained less the price of the seconds is the greatest.

Rules are cross-fitted: those fitted on one half of the calibration samples are valued on the other,
so that no rule gains from what it was fitted to. The frontier is an estimate all the same: a rule
may look at more than the last confidence, and halves are finite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from delen.bundle.calibration import Calibration

_PRICES = np.geomspace(0.005, 20.0, 24)
"""Of the time to the last exit, in accuracy: from what hardly stops a sample to what stops all."""


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """What more ``seconds`` of the device gain, best pieces first: float64 ``[pieces]``. Pieces of
    ``gain`` in expected accuracy come in falling order of gain a second."""

    seconds: NDArray[np.float64]
    gain: NDArray[np.float64]

    @classmethod
    def over(cls, points: NDArray[np.float64]) -> Frontier:
        """The concave hull of ``points`` (seconds and accuracy, float64 ``[points, 2]``) and of no
        answer for no time."""
        hull = [(0.0, 0.0)]
        for seconds, accuracy in sorted(map(tuple, points.tolist())):
            if accuracy <= hull[-1][1]:
                continue
            while len(hull) > 1 and _turns_up(hull[-2], hull[-1], (seconds, accuracy)):
                hull.pop()
            hull.append((seconds, accuracy))
        steps = np.diff(np.array(hull), axis=0)
        return cls(steps[:, 0], steps[:, 1])

    @classmethod
    def mixed(cls, parts: Sequence[tuple[float, Frontier]]) -> Frontier:
        """A frontier of which each of ``parts`` is a share."""
        if not parts:
            return cls(np.empty(0), np.empty(0))
        seconds = np.concatenate([share * part.seconds for share, part in parts])
        gain = np.concatenate([share * part.gain for share, part in parts])
        order = np.argsort(seconds / gain, kind="stable")
        return cls(seconds[order], gain[order])

    @classmethod
    def best(cls, frontiers: Sequence[Frontier]) -> Frontier:
        """What can be gained along any of ``frontiers``, and in between."""
        if len(frontiers) == 1:
            return frontiers[0]
        points = [np.column_stack((each.seconds, each.gain)).cumsum(axis=0) for each in frontiers]
        return cls.over(np.concatenate(points))


def _turns_up(
    first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]
) -> bool:
    """Whether ``middle`` is on or below the line from ``first`` to ``last``."""
    (x0, y0), (x1, y1), (x2, y2) = first, middle, last
    return (y1 - y0) * (x2 - x0) <= (y2 - y0) * (x1 - x0)


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """Some stopping rules: the mean ``seconds`` that they take of the device (float64 ``[rules]``),
    and which samples they answer rightly (bool ``[rules, samples]``)."""

    seconds: NDArray[np.float64]
    right: NDArray[np.bool_]


class StoppingRules:
    """The rules for one network."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._confidence = calibration.confidence.astype(np.float64)
        self._halves = _halves(calibration)

    def within(self, costs: Sequence[float]) -> Rules:
        """Those that stop at one of the exits that ``costs`` are the device seconds up to: at a
        fixed one, or by confidence."""
        cost, correct = np.asarray(costs, np.float64), self._calibration.correct
        seconds = np.zeros((len(_PRICES), len(correct)))
        right = np.zeros(seconds.shape, bool)
        for one, other in (self._halves, self._halves[::-1]):
            intervals = self._fit(one, cost)
            going = np.ones((len(_PRICES), len(other)), bool)
            for exit, spent in enumerate(cost.tolist()):
                seconds[:, other] = np.where(going, spent, seconds[:, other])
                right[:, other] = np.where(going, correct[other, exit], right[:, other])
                if exit < len(intervals):
                    going &= intervals[exit].hold(self._confidence[other, exit])
        return Rules(
            np.concatenate((cost, seconds.mean(axis=1))),
            np.concatenate((correct.T[: len(cost)], right)),
        )

    def at_thresholds(self, thresholds: Mapping[int, float], costs: Sequence[float]) -> Rules:
        """Those that stop at the first exit as confident as a threshold, or at the exit that it is
        for."""
        calibration, cost = self._calibration, np.asarray(costs, np.float64)
        seconds, right = [], []
        for exit, threshold in thresholds.items():
            seconds.append(cost[calibration.exits_taken(threshold, exit)].mean())
            right.append(calibration.right_answers(threshold, exit))
        return Rules(np.array(seconds), np.array(right).reshape(-1, calibration.samples))

    def _fit(self, rows: NDArray[np.int64], cost: NDArray[np.float64]) -> list[_Intervals]:
        """For each exit but the last the intervals in which samples go on."""
        prices = _PRICES[:, None] / cost[-1]
        correct = self._calibration.correct[rows].astype(np.float64)
        after = correct[:, len(cost) - 1] - prices * cost[-1]
        intervals: list[_Intervals] = []
        for exit in range(len(cost) - 2, -1, -1):
            confidence = self._confidence[rows, exit]
            stopped = correct[:, exit] - prices * cost[exit]
            goes_on = _Intervals.fitted(after - stopped, confidence)
            after = np.where(goes_on.hold(confidence), after, stopped)
            intervals.append(goes_on)
        return intervals[::-1]


@dataclass(frozen=True, slots=True, eq=False)
class _Intervals:
    """One of confidences for each price, from ``low`` to below ``high``: float64 ``[prices]``."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def fitted(cls, gain: NDArray[np.float64], confidence: NDArray[np.float64]) -> _Intervals:
        """Those with the greatest sum of ``gain`` (``[prices, samples]``) over the samples of that
        ``confidence``; empty where no sum is above 0."""
        order = np.argsort(confidence)
        edges = np.concatenate((confidence[order], [np.inf]))
        is_edge = np.concatenate(([True], edges[1:] != edges[:-1]))
        sums = np.zeros((gain.shape[0], gain.shape[1] + 1))
        np.cumsum(gain[:, order], axis=1, out=sums[:, 1:])
        sums, edges = sums[:, is_edge], edges[is_edge]
        end = (sums - np.minimum.accumulate(sums, axis=1)).argmax(axis=1)
        before_end = np.arange(len(edges)) <= end[:, None]
        start = np.where(before_end, sums, np.inf).argmin(axis=1)
        low = np.where(start == 0, 0.0, edges[start])
        return cls(low, np.where(start == end, low, edges[end]))

    def hold(self, confidence: NDArray[np.float64]) -> NDArray[np.bool_]:
        """For each price which samples are inside: ``[prices, samples]``."""
        inside: NDArray[np.bool_] = (confidence >= self.low[:, None]) & (
            confidence < self.high[:, None]
        )
        return inside


def _halves(calibration: Calibration) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The samples in two halves; those of one group are in the same."""
    groups = calibration.groups
    units = np.arange(calibration.samples) if groups is None else groups
    count = int(units.max()) + 1
    first = np.zeros(count, bool)
    first[np.random.default_rng(0).permutation(count)[: count // 2]] = True
    return np.flatnonzero(first[units]), np.flatnonzero(~first[units])
