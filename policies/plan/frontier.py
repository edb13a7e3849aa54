"""The choices worth their joules: the hull of their worth over expected energy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from delen.bundle.calibration import THRESHOLDS, Calibration
from delen.core.frontier import Choice, Frontier


class Freedom(Enum):
    """What may be chosen to save: thresholds and depth, depth alone, or nothing."""

    THRESHOLD = "threshold"
    DEPTH = "depth"
    NONE = "none"


_KEPT = 256
"""How many frontiers are kept."""

Energies = tuple[float | None, ...]
Tolls = tuple[float, ...]
Curve = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Cloud:
    """All choices up to some exit; ``shares`` [choices, exits] of inputs that end at each."""

    exits: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    shares: NDArray[np.float64]
    accuracies: NDArray[np.float64]

    def choice(self, index: int, joules: Curve | None, toll: Curve) -> Choice:
        return Choice(
            exit=int(self.exits[index]),
            threshold=_none_if_nan(float(self.thresholds[index])),
            energy=None if joules is None else float(joules[index]),
            accuracy=float(self.accuracies[index]),
            toll=float(toll[index]),
        )


class Frontiers:
    """Frontiers of one network at the energies of the moment.

    ``useful`` are the exits worth reaching. Choices whose expected accuracy is below
    ``least_accuracy`` are never taken to save energy. Safe for many threads.
    """

    def __init__(
        self, calibration: Calibration, useful: Sequence[int], least_accuracy: float
    ) -> None:
        self._calibration = calibration
        self._useful = tuple(useful)
        self._least_accuracy = least_accuracy
        self._clouds: dict[tuple[int, Freedom], _Cloud] = {}
        self._made: dict[tuple[Choice, Energies, Freedom, Tolls], Frontier] = {}

    def up_to(
        self, top: Choice, energies: Energies, freedom: Freedom, tolls: Tolls = ()
    ) -> Frontier:
        """The frontier whose most accurate choice is ``top``, which is taken at no price.

        ``energies`` are the joules up to each exit, ``tolls`` what the seconds up to each cost in
        accuracy; without any, time is free. The other choices go no deeper than ``top``, and are
        cheaper and less accurate. Where time costs, ``top`` is left out if another is worth more.
        """
        known, tolls = energies[: top.exit + 1], tolls[: top.exit + 1]
        if (top.energy is None or None in known) and not tolls:
            freedom = Freedom.NONE
        key = (top, known, freedom, tolls)
        frontier = self._made.get(key)  # another thread may clear what is kept at any moment
        if frontier is None:
            frontier = self._make(top, known, freedom, tolls)
            if len(self._made) >= _KEPT:
                self._made.clear()
            self._made[key] = frontier
        return frontier

    def _make(self, top: Choice, energies: Energies, freedom: Freedom, tolls: Tolls) -> Frontier:
        if freedom is Freedom.NONE:
            return Frontier((top,))
        cloud = self._cloud(top.exit, freedom)
        lesser = (cloud.accuracies < top.accuracy) & (cloud.accuracies >= self._least_accuracy)
        toll = cloud.shares @ np.array(tolls or (0.0,) * (top.exit + 1), np.float64)
        worth = cloud.accuracies - toll
        if top.energy is None or None in energies:
            found = np.flatnonzero(lesser & (worth > top.worth))
            if not len(found):
                return Frontier((top,))
            return Frontier((cloud.choice(int(found[np.argmax(worth[found])]), None, toll),))
        joules = cloud.shares @ np.array(energies, np.float64)
        found = np.flatnonzero(lesser & (joules < top.energy))
        found = found[np.lexsort((-worth[found], joules[found]))]
        best = np.maximum.accumulate(worth[found])
        rises = np.ones(len(found), bool)
        rises[1:] = best[1:] > best[:-1]
        choices = [cloud.choice(int(index), joules, toll) for index in found[rises]]
        if not choices or top.worth > choices[-1].worth:
            choices.append(top)
        return Frontier(tuple(hull(choices)))

    def _cloud(self, deepest: int, freedom: Freedom) -> _Cloud:
        key = (deepest, freedom)
        if key not in self._clouds:
            parts = list(self._parts(deepest, freedom))
            self._clouds[key] = _Cloud(
                *(np.concatenate(column) for column in zip(*parts, strict=True))
            )
        return self._clouds[key]

    def _parts(
        self, deepest: int, freedom: Freedom
    ) -> Iterator[
        tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    ]:
        """Each depth without a threshold, and with every threshold if they may be chosen."""
        table = self._calibration
        for exit in (exit for exit in self._useful if exit <= deepest):
            straight = np.zeros((1, deepest + 1))
            straight[0, exit] = 1.0
            yield (
                np.array([exit]),
                np.array([np.nan]),
                straight,
                np.array([table.accuracy(exit)]),
            )
            if freedom is Freedom.THRESHOLD and exit > 0:
                count = len(THRESHOLDS)
                shares = np.zeros((count, deepest + 1))
                shares[:, : exit + 1] = table.share_curve(exit)
                yield np.full(count, exit), THRESHOLDS, shares, table.curve(exit).accuracy


def hull(choices: Sequence[Choice]) -> list[Choice]:
    """The ``choices`` that a line of some slope above 0 touches from above.

    ``choices`` must ascend strictly in energy and worth; energies must be known. (Andrew's
    monotone chain, "Another efficient algorithm for convex hulls in two dimensions", 1979.)
    """
    kept: list[Choice] = []
    for choice in choices:
        while len(kept) > 1 and _slope(kept[-2], kept[-1]) <= _slope(kept[-1], choice):
            kept.pop()
        kept.append(choice)
    return kept


def _slope(first: Choice, second: Choice) -> float:
    assert first.energy is not None and second.energy is not None
    return (second.worth - first.worth) / (second.energy - first.energy)


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else value
