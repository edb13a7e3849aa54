from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from delen.errors import InvalidInput
from multiexit_models.attach.placement import nearest_in_order, place_exits


def area(costs, accuracies, chosen) -> float:
    """Under the step curve, exit by exit, as its definition says."""
    corners, best = [(0.0, 0.0)], 0.0
    for place in chosen:
        best = max(best, accuracies[place])
        corners.append((costs[place], best))
    return sum(height * (end - start) for (start, height), (end, _) in pairwise(corners))


@pytest.mark.parametrize("seed", range(40))
def test_no_other_choice_has_a_larger_area(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 10))
    k = int(rng.integers(1, n + 1))
    costs = np.cumsum(rng.integers(0, 4, n)).astype(float)
    accuracies = rng.integers(0, 8, n) / 8  # ties, falls and useless places among them
    chosen = place_exits(costs, accuracies, k)
    assert len(set(chosen)) == k
    assert list(chosen) == sorted(chosen)
    assert chosen[-1] == n - 1
    best = max(
        area(costs, accuracies, (*some, n - 1)) for some in combinations(range(n - 1), k - 1)
    )
    assert area(costs, accuracies, chosen) == pytest.approx(best)


def test_a_useless_place_is_left() -> None:
    costs, accuracies = [1, 2, 3, 4, 10], [0.1, 0.6, 0.6, 0.5, 0.9]
    assert place_exits(costs, accuracies, 2) == (1, 4)
    assert place_exits(costs, accuracies, 1) == (4,)


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
