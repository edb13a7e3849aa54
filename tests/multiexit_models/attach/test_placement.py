from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from delen.errors import InvalidInput
from multiexit_models.attach.placement import nearest_in_order, place_exits


def area(costs, accuracies, heads, chosen, horizon) -> float:
    """Under the step curve, exit by exit, as its definition says."""
    corners, best, delay = [(0.0, 0.0)], 0.0, 0.0
    for place in chosen:
        delay += heads[place]
        best = max(best, accuracies[place])
        corners.append((costs[place] + delay, best))
    corners.append((horizon, best))
    return sum(height * (end - start) for (start, height), (end, _) in pairwise(corners))


@pytest.mark.parametrize("seed", range(40))
def test_no_other_choice_has_a_larger_area(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 10))
    k = int(rng.integers(1, n + 1))
    costs = np.cumsum(rng.integers(0, 4, n)).astype(float)
    accuracies = rng.integers(0, 8, n) / 8  # ties, falls and useless places among them
    heads = rng.integers(0, 3, n) * rng.choice([0.0, 0.3, 2.0])
    heads[-1] = 0
    horizon = costs[-1] + (k - 1) * heads.max()
    chosen = place_exits(costs, accuracies, k, heads)
    assert len(set(chosen)) == k
    assert list(chosen) == sorted(chosen)
    assert chosen[-1] == n - 1
    best = max(
        area(costs, accuracies, heads, (*some, n - 1), horizon)
        for some in combinations(range(n - 1), k - 1)
    )
    assert area(costs, accuracies, heads, chosen, horizon) == pytest.approx(best)


def test_a_dear_head_moves_the_exit_and_a_useless_place_is_left() -> None:
    costs, accuracies = [1, 2, 3, 4, 10], [0.1, 0.6, 0.6, 0.5, 0.9]
    assert place_exits(costs, accuracies, 2) == (1, 4)
    assert place_exits(costs, accuracies, 2, [0, 5, 0, 0, 0]) == (2, 4)
    assert place_exits(costs, accuracies, 1) == (4,)


def test_one_head_cost_for_all_counts_for_all_but_the_end() -> None:
    costs, accuracies = [1.0, 2.0, 3.0], [0.2, 0.5, 0.9]
    assert place_exits(costs, accuracies, 2, 0.5) == place_exits(
        costs, accuracies, 2, [0.5, 0.5, 0]
    )


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (([], [], 1), "costs"),
        (([2, 1], [0.1, 0.2], 1), "costs"),
        (([-1, 1], [0.1, 0.2], 1), "costs"),
        (([1, np.nan], [0.1, 0.2], 1), "costs"),
        (([1, 2], [0.1], 1), "accuracies"),
        (([1, 2], [0.1, 1.2], 1), "accuracies"),
        (([1, 2], [0.1, np.nan], 1), "accuracies"),
        (([1, 2], [0.1, 0.2], 3), "k"),
        (([1, 2], [0.1, 0.2], 0), "k"),
        (([1, 2], [0.1, 0.2], 1, -1), "head_cost"),
        (([1, 2], [0.1, 0.2], 1, [1, 2, 3]), "head_cost"),
    ],
)
def test_wrong_figures_are_refused(arguments, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        place_exits(*arguments)
    assert refused.value.field == field


@pytest.mark.parametrize("seed", range(20))
def test_targets_get_the_nearest_places_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    candidates = int(rng.integers(1, 9))
    targets = int(rng.integers(0, candidates + 1))
    distances = rng.integers(0, 5, (targets, candidates)).astype(float)
    chosen = nearest_in_order(distances)
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) == targets

    def total(some: tuple[int, ...]) -> float:
        return sum(distances[target, place] for target, place in enumerate(some))

    assert total(chosen) == min(map(total, combinations(range(candidates), targets)))


def test_more_targets_than_places_are_refused() -> None:
    with pytest.raises(InvalidInput, match="2 places for 3"):
        nearest_in_order(np.zeros((3, 2)))
