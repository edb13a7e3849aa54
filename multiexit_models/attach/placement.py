"""Where exits go: exact choices by dynamic programming over measured or counted costs."""

from __future__ import annotations

from itertools import islice

import numpy as np
from numpy.typing import ArrayLike, NDArray

from delen.errors import InvalidInput


def place_exits(costs: ArrayLike, accuracies: ArrayLike, k: int) -> tuple[int, ...]:
    """Choose the ``k`` places whose exits make the best of every budget.

    ``costs[j]``: what the network costs up to candidate place j, in any unit, never falling.
    ``accuracies[j]``: of an exit there, 0 to 1. The last place is the network's end and is always
    chosen.

    The best choice has the largest area, over budgets from 0 to the end's cost, under the step
    curve of the best accuracy reached within the budget (0 before the first exit). Exact: a
    dynamic program over the number of exits and the last one, whose accuracies rise, since an exit
    no better than one before adds no area. O(n^2 k).

    Returns the chosen indices, rising. Raises InvalidInput naming what is wrong.
    """
    cost, accuracy = _checked(costs, accuracies, k)
    end = len(cost) - 1
    # Index 0 stands for no exit yet, index j for place j - 1. The end itself adds no area.
    reached = np.append(0.0, accuracy[:end])
    budget_left = np.append(0.0, cost[end] - cost[:end])
    rise = reached[None, :] - reached[:, None]
    in_order = np.triu(np.ones_like(rise, dtype=bool), 1)
    gain = np.where(in_order & (rise > 0), rise * budget_left, -np.inf)
    area = np.full((k, end + 1), -np.inf)
    area[0, 0] = 0.0
    before = np.zeros((k, end + 1), dtype=np.int64)
    for count in range(1, k):
        reaching = area[count - 1][:, None] + gain
        before[count], area[count] = reaching.argmax(axis=0), reaching.max(axis=0)
    best_count, last = np.unravel_index(area.argmax(), area.shape)
    chosen = {end}
    for count in range(int(best_count), 0, -1):
        chosen.add(int(last) - 1)
        last = before[count, last]
    spare = [place for place in range(end) if place not in chosen]
    chosen.update(islice(spare, k - len(chosen)))
    return tuple(sorted(chosen))


def _checked(
    costs: ArrayLike, accuracies: ArrayLike, k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    cost = np.asarray(costs, dtype=np.float64)
    accuracy = np.asarray(accuracies, dtype=np.float64)
    if cost.ndim != 1 or not len(cost) or not np.isfinite(cost).all() or (np.diff(cost) < 0).any():
        raise InvalidInput("costs must be finite and never fall, one for each place", "costs")
    if cost[0] < 0:
        raise InvalidInput(f"costs must be 0 or more, not {cost[0]}", "costs")
    if accuracy.shape != cost.shape:
        raise InvalidInput(
            f"accuracies must be one for each of {len(cost)} places, not {accuracy.shape}",
            "accuracies",
        )
    if not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise InvalidInput("accuracies must be between 0 and 1", "accuracies")
    if not 1 <= k <= len(cost):
        raise InvalidInput(f"k must be 1 to {len(cost)} for {len(cost)} places, not {k}", "k")
    return cost, accuracy


def nearest_in_order(distances: NDArray[np.floating]) -> tuple[int, ...]:
    """For each target, in order, a candidate after the candidate of the target before.

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
