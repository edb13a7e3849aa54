"""What may be reached without knowing which exits are right, as tasks for the fluid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from delen.core.bounds import Bounds
from delen.simulate.bounds.least_costs import LeastCosts, Tasks, is_affordable
from delen.simulate.bounds.stopping import Frontier, Rules, StoppingRules
from delen.simulate.trace import Trace
from policies.plan.planner import Planner


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """The frontier of some rules. The most accurate one has ``accuracy`` and answers the samples
    ``right`` rightly (bool ``[samples]``)."""

    frontier: Frontier
    accuracy: float
    right: NDArray[np.bool_]

    @classmethod
    def of(cls, rules: Rules) -> Estimate:
        accuracies = rules.right.mean(axis=1)
        frontier = Frontier.over(np.column_stack((rules.seconds, accuracies)))
        if not len(accuracies):
            return cls(frontier, 0.0, np.zeros(rules.right.shape[1], bool))
        best = int(accuracies.argmax())
        return cls(frontier, float(accuracies[best]), rules.right[best])


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """What a request with some bounds may gain at one input size. ``deepest`` is the estimate for
    the deepest exit that they allow; None if they allow no exit."""

    frontier: Frontier
    deepest: Estimate | None

    @property
    def gain(self) -> float:
        return float(self.frontier.gain.sum())

    def luck(self, samples: NDArray[np.int64]) -> tuple[float, float]:
        """How many of ``samples`` the most accurate rule answers rightly, and of how many samples
        it usually does."""
        if self.deepest is None:
            return 0.0, 0.0
        return float(self.deepest.right[samples].sum()), len(samples) * self.deepest.accuracy


class LabelBlind:
    """One network at one input size: what a request with some bounds may gain, for how many seconds
    of the device."""

    def __init__(self, planner: Planner, costs: LeastCosts) -> None:
        self.costs = costs
        self._planner = planner
        self._stopping = StoppingRules(planner.calibration)
        self._estimates: dict[tuple[float | None, ...], Estimate] = {}

    def offer(self, bounds: Bounds) -> Offer:
        """For a request with these ``bounds``.

        Noise lets it reach exit k in time with its chance at most. A policy that knew beforehand
        how far each request gets would reach no less, so each depth has its part of the frontier.
        """
        chances = self._chances(bounds)
        if not chances:
            return Offer(Frontier.mixed([]), None)
        parts = [
            (chance - further, self._estimate(bounds, exit).frontier)
            for exit, (chance, further) in enumerate(pairwise([*chances, 0.0]))
            if chance > further
        ]
        return Offer(Frontier.mixed(parts), self._estimate(bounds, len(chances) - 1))

    def _chances(self, bounds: Bounds) -> list[float]:
        """The largest probability of an answer in time from each exit that the caps allow."""
        costs, window, chances = self.costs, window_of(bounds), []
        for exit, energy in enumerate(costs.energy):
            chance = costs.chance(exit, window)
            if chance <= 0 or not is_affordable(bounds.max_energy, energy):
                break
            chances.append(chance)
        return chances

    def _estimate(self, bounds: Bounds, deepest: int) -> Estimate:
        """Of the rules up to exit ``deepest``; of a floor, those that plans are certified for."""
        window, floor = window_of(bounds), bounds.min_accuracy
        seconds = [self.costs.device_seconds(exit, window) for exit in range(deepest + 1)]
        key = (floor, *seconds)
        if key not in self._estimates:
            if floor is None:
                rules = self._stopping.within(seconds)
            else:
                rules = self._stopping.at_thresholds(self._certified(floor, deepest), seconds)
            self._estimates[key] = Estimate.of(rules)
        return self._estimates[key]

    def _certified(self, floor: float, deepest: int) -> dict[int, float]:
        """The threshold that keeps ``floor`` in a network that ends at each exit."""
        planner = self._planner
        if not planner.by_threshold:
            return {}
        exits = (exit for exit in planner.useful.exits if exit <= deepest)
        found = {exit: planner.certify(exit, floor) for exit in exits}
        return {exit: each.value for exit, each in found.items() if each is not None}


def label_blind_tasks(
    trace: Trace, samples: NDArray[np.int64], sizes: Sequence[tuple[Planner, LeastCosts]]
) -> Tasks:
    """The pieces of every request's frontier as tasks of its window: each is worth its gain, and
    the fluid takes those that gain most a second first.

    ``samples`` are what the requests of ``trace`` are about. Of several input ``sizes`` a request
    may use any, or each of them sometimes. Frontiers are means over the whole table; gains are
    scaled by how much easier the samples drawn from it are than the others.
    """
    rows_of: dict[Bounds, list[int]] = defaultdict(list)
    for row, arrival in enumerate(trace):
        rows_of[arrival.bounds].append(row)
    networks = [LabelBlind(planner, costs) for planner, costs in sizes]
    times = np.array([arrival.time for arrival in trace], np.float64) + networks[0].costs.network
    beside = min(network.costs.beside for network in networks)
    pieces: list[NDArray[np.float64]] = [np.empty((4, 0))]
    right = usual = 0.0
    for bounds, rows in rows_of.items():
        offers = [network.offer(bounds) for network in networks]
        frontier = Frontier.best([offer.frontier for offer in offers])
        found, expected = max(offers, key=lambda offer: offer.gain).luck(samples[rows])
        right, usual = right + found, usual + expected
        release = np.repeat(times[rows], len(frontier.gain))
        end = release + window_of(bounds) - beside
        pairs = np.tile((frontier.seconds, frontier.gain), len(rows))
        pieces.append(np.vstack((release, end, pairs)))
    release, deadline, seconds, gain = np.concatenate(pieces, axis=1)
    gain = gain * (right / usual if usual else 1.0)
    return Tasks(release, deadline, seconds / gain, gain, len(trace))


def window_of(bounds: Bounds) -> float:
    """Seconds from a request to the latest answer in time."""
    return np.inf if bounds.max_latency is None else bounds.max_latency
