"""Where exits go: exact choices by dynamic programming over measured or counted costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from delen.errors import InvalidInput


def place_exits(
    costs: Sequence[float] | NDArray[np.floating],
    accuracies: Sequence[float] | NDArray[np.floating],
    k: int,
    head_cost: ArrayLike = 0.0,
) -> tuple[int, ...]:
    """Choose the ``k`` places whose exits make the best of every budget.

    ``costs[j]``: what the network costs up to candidate place j, in any unit, never falling.
    ``accuracies[j]``: of an exit there, 0 to 1. ``head_cost``: of asking an exit, for each place
    or one for all; the last place is the network's end, whose classifier is within its cost. The
    last place is always chosen.

    The best is the largest area, over budgets from 0 to the end's cost with the dearest heads on
    the way, under the step curve of the best accuracy reached within the budget (0 before the
    first exit). Exact: for each accuracy that may be the best reached, a dynamic program over
    (exits so far, best accuracy so far), O(n^2 k) steps of n in all. Among equal choices it
    takes one with the same area.

    Returns the chosen indices, rising. Raises InvalidInput naming what is wrong.
    """
    cost, accuracy, heads = _checked(costs, accuracies, k, head_cost)
    horizon = cost[-1] + (k - 1) * heads.max(initial=0.0)
    best_area, best_choice = -np.inf, tuple[int, ...]()
    for ceiling in np.unique(accuracy[accuracy >= accuracy[-1]]):
        area, choice = _best_below(cost, accuracy, k, heads, horizon, float(ceiling))
        if area > best_area:
            best_area, best_choice = area, choice
    return best_choice


def _best_below(
    cost: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    k: int,
    heads: NDArray[np.float64],
    horizon: float,
    ceiling: float,
) -> tuple[float, tuple[int, ...]]:
    """The best choice of places whose accuracy is ``ceiling`` at most, and its area.

    A head delays all that comes after it by its cost, and so takes that much of what the
    accuracy is still to gain: up to ``ceiling``. Where the choice does not reach ``ceiling`` its
    area comes out too small; the ceiling that it does reach gives the true one.
    """
    levels = np.unique(np.append(accuracy[accuracy <= ceiling], 0.0))
    area = np.full((k + 1, len(levels)), -np.inf)
    area[0, 0] = 0.0
    # came[j][count, level]: the level before place j was taken as the count-th; -1: it was not.
    came = np.full((len(cost), k + 1, len(levels)), -1, dtype=np.int64)
    for place, (spent, reached, head) in enumerate(zip(cost, accuracy, heads, strict=True)):
        if reached > ceiling:
            continue
        before = area
        # the end has to be taken, any other place can be left
        area = np.full_like(area, -np.inf) if place == len(cost) - 1 else area.copy()
        gained = np.maximum(reached - levels, 0) * (horizon - spent) - head * (ceiling - levels)
        taken = before[:-1] + gained
        own = int(np.searchsorted(levels, reached))
        source = taken[:, : own + 1].argmax(axis=1)
        rising = np.take_along_axis(taken, source[:, None], axis=1)[:, 0]
        better = np.flatnonzero(rising > area[1:, own])
        area[better + 1, own] = rising[better]
        came[place, better + 1, own] = source[better]
        count, level = np.nonzero(taken[:, own + 1 :] > area[1:, own + 1 :])
        level += own + 1
        area[count + 1, level] = taken[count, level]
        came[place, count + 1, level] = level
    end = int(area[k].argmax())
    return float(area[k, end]), _traced_back(came, k, end)


def _traced_back(came: NDArray[np.int64], count: int, level: int) -> tuple[int, ...]:
    """The places taken on the way to ``count`` exits and ``level``.

    The last that changed a state is the one that made it, as each only betters it.
    """
    chosen: list[int] = []
    end = len(came)
    while count:
        made = np.flatnonzero(came[:end, count, level] >= 0)
        if not len(made):
            return ()
        end = int(made[-1])
        count, level = count - 1, int(came[end, count, level])
        chosen.append(end)
    return tuple(reversed(chosen))


def nearest_in_order(distances: NDArray[np.floating]) -> tuple[int, ...]:
    """For each target, in order, a candidate after that of the target before.

    ``distances``: float ``[targets, candidates]``; the sum over targets is the least possible.
    Raises InvalidInput when there are fewer candidates than targets.
    """
    targets, candidates = distances.shape
    if targets > candidates:
        raise InvalidInput(f"there are {candidates} places for {targets} exits", "exits")
    least = np.full((targets + 1, candidates + 1), np.inf)  # [first targets, first candidates]
    least[0] = 0.0
    for target in range(targets):
        for candidate in range(candidates):
            taken = least[target, candidate] + distances[target, candidate]
            least[target + 1, candidate + 1] = min(least[target + 1, candidate], taken)
    chosen: list[int] = []
    candidate = candidates
    for target in range(targets, 0, -1):
        while least[target, candidate - 1] == least[target, candidate]:
            candidate -= 1
        candidate -= 1
        chosen.append(candidate)
    return tuple(reversed(chosen))


def _checked(
    costs: ArrayLike, accuracies: ArrayLike, k: int, head_cost: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    cost = np.asarray(costs, dtype=np.float64)
    accuracy = np.asarray(accuracies, dtype=np.float64)
    heads = np.asarray(head_cost, dtype=np.float64)
    if cost.ndim != 1 or not len(cost) or not np.isfinite(cost).all() or (np.diff(cost) < 0).any():
        raise InvalidInput("costs must be finite and never fall, one for each place", "costs")
    if cost[0] < 0:
        raise InvalidInput(f"costs must not be negative, got {cost[0]}", "costs")
    if accuracy.shape != cost.shape:
        raise InvalidInput(
            f"accuracies must be one for each of {len(cost)} places, got {accuracy.shape}",
            "accuracies",
        )
    if not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise InvalidInput("accuracies must be between 0 and 1", "accuracies")
    if heads.shape not in ((), cost.shape) or not ((heads >= 0) & np.isfinite(heads)).all():
        raise InvalidInput(
            f"head_cost must be one cost, or one for each of {len(cost)} places, 0 or more",
            "head_cost",
        )
    if not 1 <= k <= len(cost):
        raise InvalidInput(f"of {len(cost)} places {k} exits cannot be chosen", "k")
    per_place = np.broadcast_to(heads, cost.shape).copy()
    per_place[-1] = 0.0
    return cost, accuracy, per_place
