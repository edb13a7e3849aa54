"""From bounds to an operating point: how deep, at which confidence, at what predicted cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, inf, log, log1p

import numpy as np

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds
from delen.core.fleet_terms import NO_TERMS, FleetTerms
from delen.core.frontier import Choice
from delen.core.plan import UNKNOWN_CASE, Case, LimitedBy, OperatingPoint, Plan
from delen.core.variant import Size
from delen.errors import Nearest
from delen.profile.cost_model import CostModel
from policies.plan.frontier import Freedom, Frontiers
from policies.plan.promises import Promises
from policies.plan.sizes import level_of_each
from policies.plan.thresholds import (
    LTT,
    Threshold,
    agreement_threshold,
    certified_threshold,
    highest_floor,
    lossless_threshold,
    samples_needed,
    units_needed,
)
from policies.plan.useful_exits import UsefulExits

LATENCY_MARGIN = 1.25
ENERGY_MARGIN = 1.05
"""Nearest feasible caps are this much above the prediction, so that a retry with them succeeds."""

_STEP = log1p(0.05)
"""Time is priced at the slowdown rounded to 5 %, so that plans made under a price can be kept."""

NO_SOURCE = "this machine has no energy source"
NO_FLOORS = (
    "min_accuracy cannot be guaranteed: the exit policy in force does not stop by confidence "
    "thresholds"
)

NOT_GUARANTEED = "the calibration no longer holds, so no floor is guaranteed now"

NOT_HELD_OUT = (
    "it is not known whether the weights were trained on the calibration data, so no floor is "
    "guaranteed"
)

DEPARTED = "inputs are not like the calibration data now, so no floor is guaranteed"

ACCURACY = "accuracy"
AGREEMENT = "agreement"
LOSSLESS = (ACCURACY, AGREEMENT)
"""What a request without bounds may lose against the deepest exit: accuracy, by the labels of the
calibration table, or agreement with its answers, which needs no labels."""


@dataclass(frozen=True, slots=True)
class PlannerSettings:
    """``guarantee``: the level of floors. ``tolerance``: what a request without bounds may lose
    against the deepest exit, in the sense of ``lossless`` (one of LOSSLESS). ``procedure``: how
    thresholds are certified, one of ``policies.plan.thresholds.PROCEDURES``. ``least_accuracy``:
    choices of less expected accuracy are never taken to save energy."""

    guarantee: float = 0.95
    tolerance: float = 0.005
    procedure: str = LTT
    lossless: str = ACCURACY
    least_accuracy: float = 0.0


class Planner:
    """Plans for one network. Holds the calibration; the costs of the moment are arguments.

    ``by_threshold`` is the exit policy's: without it plans have no thresholds, their accuracies
    are unknown, and floors are infeasible. ``is_held_out`` is false where the weights may have been
    trained on the calibration data: floors are then tried without a guarantee.

    The network runs at ``size``, one of so many ``sizes`` of its model, whose floors hold together:
    each is certified at ``level``.
    """

    def __init__(
        self,
        calibration: Calibration,
        settings: PlannerSettings,
        by_threshold: bool = True,
        is_held_out: bool = True,
        size: Size | None = None,
        sizes: int = 1,
    ) -> None:
        self.settings = settings
        self.size = size
        self.level = level_of_each(settings.guarantee, sizes)
        self.by_threshold = by_threshold
        self._is_held_out = is_held_out
        self.calibration = calibration
        self.accuracies = tuple(calibration.accuracy(exit) for exit in range(calibration.exits))
        self.useful = UsefulExits(self.accuracies)
        self._certified: dict[tuple[int, float], Threshold | None] = {}
        self.promises = Promises(calibration, 1 - self.level, self.useful.deepest)
        self._lossless: dict[int, Threshold | None] = {}
        self._lossless_at(self.useful.deepest)
        self._frontiers = Frontiers(calibration, self.useful.exits, settings.least_accuracy)

    def _lossless_at(self, deepest: int) -> Threshold | None:
        """The lowest threshold that loses at most the tolerance against exit ``deepest``."""
        if deepest not in self._lossless:
            table, settings = self.calibration, self.settings
            tolerance, level = settings.tolerance, settings.guarantee
            if settings.lossless == AGREEMENT:
                found = agreement_threshold(table, deepest, tolerance, level, settings.procedure)
            else:
                found = lossless_threshold(table, deepest, tolerance, level)
            self._lossless[deepest] = found
        return self._lossless[deepest]

    def points(self, costs: CostModel) -> tuple[OperatingPoint, ...]:
        """Every exit as a place to stop, at the costs of the moment."""
        energies = costs.energies()
        return tuple(
            OperatingPoint(
                exit=exit,
                accuracy=accuracy,
                latency=self.latency(exit, costs),
                energy=energies[exit],
                dominated=exit not in self.useful.exits,
                size=self.size,
            )
            for exit, accuracy in enumerate(self.accuracies)
        )

    def plan(
        self,
        bounds: Bounds,
        costs: CostModel,
        delay: float = 0.0,
        guaranteed: bool = True,
        price: float = 0.0,
        waits: Sequence[float] | None = None,
        terms: FleetTerms = NO_TERMS,
        lowest: float | None = None,
    ) -> Plan:
        """The operating point for ``bounds`` when ``delay`` seconds pass before segment 0.

        ``waits`` are the seconds until each segment is in memory, inf if it does not fit; None if
        all are there. They pass beside the delay, and no plan goes beyond what fits.

        Caps alone: the deepest useful exit within them. A floor alone or with caps: the lowest
        certified threshold of the network that ends at the deepest exit within the caps, which
        has the least expected energy of the certified ones. No bound: the lowest threshold that
        loses at most the tolerance. A plan that does not keep all bounds says so in
        ``infeasible``, names the nearest feasible bounds, and is the best effort.

        ``guaranteed`` is false once the calibration no longer holds. Then no plan stops early, and
        floors that could be kept before are tried without a guarantee.

        ``lowest`` is None unless inputs are not like the calibration data. Then it is the lowest
        threshold that may stop a request, inf for none, and nothing is guaranteed either.

        ``price`` is what a joule costs in accuracy. Without a floor, a plan at a price above 0 is
        the choice of the plan's frontier that is worth it: no deeper and no dearer than without a
        price. If plans must not stop early, the price limits only their depth.

        ``terms`` are the fleet's for the tenant. Plans keep to its ceiling, which gives way to a
        floor: that is kept by the first exit beyond it that can. What it charges for a second
        counts as the price does; what it charges for a joule is part of ``price``.
        """
        latencies = {exit: self.arrival(exit, costs, delay, waits) for exit in self.useful.exits}
        energies = costs.energies()
        deepest, limited_by, problem, nearest = self.within_caps(bounds, latencies, energies)
        allowed = self.allowed(terms, bounds.min_accuracy, deepest)
        if allowed < deepest:
            deepest, limited_by = allowed, "fleet"
        threshold: Threshold | None = None
        if not self.by_threshold:
            if bounds.min_accuracy is not None:
                problem = join(problem, NO_FLOORS)
                nearest = nearest or Nearest(bounds.max_latency, None, bounds.max_energy)
        elif bounds.min_accuracy is not None:
            threshold = self.certify(deepest, bounds.min_accuracy)
            if threshold is None:
                best = highest_floor(self.calibration, deepest, self.level, self.settings.procedure)
                problem = join(problem, self._floor_problem(bounds, deepest, best, latencies))
                nearest = replace(
                    nearest or Nearest(bounds.max_latency, None, bounds.max_energy),
                    min_accuracy=best,
                )
            elif nearest is not None:
                nearest = replace(nearest, min_accuracy=bounds.min_accuracy)
        elif bounds == Bounds():
            threshold = self._lossless_at(deepest)
        if not guaranteed:
            lowest = inf
        if lowest is not None:
            value = raised(None if threshold is None else threshold.value, lowest)
            threshold = (
                None if value is None else Threshold(value, self.accuracy_of(value, deepest))
            )
            nearest = nearest and replace(nearest, min_accuracy=None)
        freedom = Freedom.THRESHOLD if self.by_threshold and lowest is None else Freedom.DEPTH
        if bounds.min_accuracy is not None:
            freedom = Freedom.NONE
        tolls = self.tolls(costs, terms)
        top = self._top(deepest, threshold, energies, tolls)
        frontier = self._frontiers.up_to(top, energies, freedom, tolls)
        choice = frontier.at(price)
        unguaranteed = (
            None if bounds.min_accuracy is None else self.unguaranteed(guaranteed, lowest)
        )
        if problem is not None and unguaranteed is not None:
            problem = join(problem, unguaranteed)
        has_guarantee = bounds.min_accuracy is not None and threshold is not None
        return Plan(
            exit=choice.exit,
            threshold=choice.threshold,
            latency=latencies[choice.exit],
            energy=energies[choice.exit],
            expected_energy=choice.energy if self.by_threshold else None,
            accuracy=choice.accuracy if self.by_threshold else None,
            guarantee=self.settings.guarantee if has_guarantee and not unguaranteed else None,
            limited_by=limited_by if choice == top else "price",
            cases=self._cases(choice),
            infeasible=problem,
            nearest=nearest,
            frontier=frontier,
            price=price,
            unguaranteed=unguaranteed,
            size=self.size,
            terms=terms,
        )

    def tolls(self, costs: CostModel, terms: FleetTerms) -> tuple[float, ...]:
        """What the seconds up to each exit cost in accuracy; none where they are free."""
        if not terms.per_second:
            return ()
        slowdown = exp(_STEP * round(log(costs.slowdown.mean) / _STEP))
        price = terms.per_second * slowdown
        return tuple(price * costs.undisturbed(exit, 1) for exit in range(costs.segments))

    def allowed(self, terms: FleetTerms, floor: float | None, deepest: int) -> int:
        """The deepest useful exit that a ceiling leaves of those up to ``deepest``."""
        ceiling = terms.deepest
        if ceiling is None or ceiling >= deepest:
            return deepest
        exits = [exit for exit in self.useful.exits if exit <= deepest]
        below = max(exit for exit in exits if exit <= ceiling)
        if floor is None or not self.by_threshold:
            return below
        able = (e for e in exits if e >= below and self.certify(e, floor) is not None)
        return next(able, deepest)

    def unguaranteed(self, guaranteed: bool, lowest: float | None = None) -> str | None:
        """Why no floor is guaranteed, whatever it is."""
        if not self._is_held_out:
            return NOT_HELD_OUT
        if not guaranteed:
            return NOT_GUARANTEED
        return None if lowest is None else DEPARTED

    def accuracy_of(self, threshold: float | None, deepest: int) -> float:
        """Expected over all requests that end at ``deepest`` or where they are confident before."""
        right = self.calibration.right_answers(threshold, deepest)
        return float(np.average(right, weights=self.calibration.weights))

    def arrival(
        self, exit: int, costs: CostModel, delay: float, waits: Sequence[float] | None
    ) -> float:
        """Seconds to an answer from ``exit``, after a ``delay`` and, at the same time, the
        ``waits`` for segments."""
        start = delay if waits is None else max(delay, waits[exit])
        return start + self.latency(exit, costs)

    def latency(self, exit: int, costs: CostModel) -> float:
        """Seconds from a request's arrival to an answer from ``exit``, alone on the device.

        For the first exit it leaves out the slowdown's spread: there is no shallower exit to fall
        back to, and a belief that refuses everything is never corrected.
        """
        predict = costs.usual if exit == self.useful.first else costs.latency
        return costs.admitting() + predict(0, exit, 1) + costs.answering()

    def within_caps(
        self,
        bounds: Bounds,
        latencies: Mapping[int, float],
        energies: Sequence[float | None],
        unknown: str = NO_SOURCE,
    ) -> tuple[int, LimitedBy, str | None, Nearest | None]:
        """The deepest of the exits in ``latencies`` that the caps allow, what limits it, and, where
        not even the first is within them, why and which caps would do.
        ``unknown`` says why energies are, where they are."""
        exits = tuple(latencies)
        first, deepest = exits[0], exits[-1]
        which = "the first exit" if first == self.useful.first else f"exit {first}"
        limited_by: LimitedBy = "depth"
        problem: str | None = None
        nearest: Nearest | None = None
        loadable = [exit for exit in exits if latencies[exit] < inf]
        if loadable and loadable[-1] < deepest:
            deepest, limited_by = loadable[-1], "memory"
        if bounds.max_latency is not None:
            reachable = [e for e in exits if latencies[e] <= bounds.max_latency]
            if not reachable:
                problem = (
                    f"max_latency {1e3 * bounds.max_latency:.3g} ms is less than the "
                    f"{1e3 * latencies[first]:.3g} ms that {which} is predicted to take"
                )
                nearest = Nearest(LATENCY_MARGIN * latencies[first], None, bounds.max_energy)
            limit = reachable[-1] if reachable else first
            if limit < deepest:
                deepest, limited_by = limit, "latency"
        if bounds.max_energy is not None:
            known = energies[first] is not None
            cap = bounds.max_energy
            affordable = [e for e in exits if (joules := energies[e]) is not None and joules <= cap]
            if not affordable:
                problem = join(problem, _energy_problem(cap, energies[first], which, unknown))
                nearest = Nearest(
                    nearest.max_latency if nearest else bounds.max_latency,
                    None,
                    ENERGY_MARGIN * (energies[first] or 0.0) if known else None,
                )
            limit = affordable[-1] if affordable else first
            if limit < deepest:
                deepest, limited_by = limit, "energy"
        return deepest, limited_by, problem, nearest

    def _floor_problem(
        self, bounds: Bounds, deepest: int, best: float, latencies: dict[int, float]
    ) -> str:
        floor, level = bounds.min_accuracy, self.settings.guarantee
        assert floor is not None
        sentence = (
            f"min_accuracy {floor:g} cannot be guaranteed at level {level:g} by an "
            f"exit up to {deepest}; the highest floor that can is {best:g}"
        )
        for exit in self.useful.exits:
            if exit > deepest and self.certify(exit, floor) is not None:
                if latencies[exit] == inf:
                    return f"{sentence} (exit {exit} could, but its segments do not fit in memory)"
                return f"{sentence} (exit {exit} could: it takes {1e3 * latencies[exit]:.3g} ms)"
        table, last = self.calibration, self.useful.deepest
        samples, accuracy = table.samples, self.accuracies[last]
        least = units_needed(table.groups is not None, floor, self.level, self.settings.procedure)
        if table.units < least < inf:
            kind = "samples" if table.groups is None else "groups"
            return (
                f"{sentence} ({table.units} calibration {kind} are too few: even without an error "
                f"it takes {least})"
            )
        if accuracy > floor and table.groups is not None:
            return (
                f"{sentence} (exit {last} is right on {accuracy:.2%} in the mean of the "
                f"{table.units} groups of {samples} calibration samples: it takes more groups)"
            )
        if accuracy > floor:
            needed = samples_needed(floor, self.level, accuracy)
            return (
                f"{sentence} (exit {last} is right on {accuracy:.2%} of the {samples} "
                f"calibration samples: some {needed} would do)"
            )
        return sentence

    def _top(
        self,
        deepest: int,
        threshold: Threshold | None,
        energies: tuple[float | None, ...],
        tolls: tuple[float, ...],
    ) -> Choice:
        if threshold is None:
            toll = tolls[deepest] if tolls else 0.0
            return Choice(deepest, None, energies[deepest], self.accuracies[deepest], toll)
        shares = self.calibration.exit_shares(threshold.value, deepest)
        toll = sum(share * each for share, each in zip(shares, tolls, strict=False))
        joules: float | None = 0.0
        for share, cost in zip(shares, energies[: deepest + 1], strict=True):
            joules = None if joules is None or cost is None else joules + share * cost
        return Choice(deepest, threshold.value, joules, threshold.accuracy, toll)

    def _cases(self, choice: Choice) -> tuple[Case, ...]:
        if not self.by_threshold:
            return (UNKNOWN_CASE,) * (choice.exit + 1)
        return self.calibration.cases(choice.threshold, choice.exit)

    def certify(self, deepest: int, floor: float) -> Threshold | None:
        """The threshold that keeps ``floor`` in a network that ends at ``deepest``, if one does."""
        key, certified = (deepest, floor), self._certified
        try:
            return certified[key]
        except KeyError:
            procedure = self.settings.procedure
            found = certified_threshold(self.calibration, deepest, floor, self.level, procedure)
            if len(certified) > 4096:
                certified.clear()
            certified[key] = found
            return found


def _energy_problem(cap: float, first: float | None, which: str, unknown: str) -> str:
    if first is None:
        return f"max_energy cannot be kept: {unknown}"
    return (
        f"max_energy {1e3 * cap:.3g} mJ is less than the {1e3 * first:.3g} mJ that {which} is "
        "predicted to take"
    )


def raised(threshold: float | None, lowest: float) -> float | None:
    """What stops a request in place of ``threshold`` where nothing below ``lowest`` may, which is
    inf for nothing at all."""
    return None if threshold is None or lowest == inf else max(threshold, lowest)


def join(first: str | None, second: str) -> str:
    return second if first is None else f"{first}; {second}"
