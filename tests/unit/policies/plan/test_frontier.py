from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from delen.bundle.calibration import THRESHOLDS, Calibration
from delen.core.frontier import Choice, Frontier
from policies.plan import frontier as module
from policies.plan.frontier import Freedom, Frontiers, hull

ENERGIES = (0.04, 0.10, 0.17, 0.30)
USEFUL = (0, 1, 2)


@pytest.fixture(scope="module")
def table(make_calibration: Callable[..., Calibration]) -> Calibration:
    return make_calibration(0.45, 0.68, 0.77, 0.76, samples=2000)


@pytest.fixture(scope="module")
def cloud(table: Calibration) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Everything that could be chosen, one by one: where inputs end, and how accurate it is."""
    shares, accuracies = [], []
    for exit in USEFUL:
        shares.append(np.eye(4)[exit])
        accuracies.append(table.accuracy(exit))
        for index, value in enumerate(THRESHOLDS if exit else ()):
            shares.append(np.pad(table.exit_shares(float(value), exit), (0, 3 - exit)))
            accuracies.append(table.curve(exit).accuracy[index])
    return np.array(shares), np.array(accuracies)


prices = st.floats(0.0, 100.0) | st.just(inf)


@given(st.lists(st.floats(0.01, 0.2), min_size=4, max_size=4), prices, st.floats(0.0, 0.8))
def test_no_cheaper_choice_is_worth_more_at_any_price(
    table: Calibration,
    cloud: tuple[NDArray[np.float64], NDArray[np.float64]],
    steps: list[float],
    price: float,
    least: float,
) -> None:
    energies = tuple(np.cumsum(steps).tolist())
    top = Choice(2, None, energies[2], table.accuracy(2))
    frontier = Frontiers(table, USEFUL, least).up_to(top, energies, Freedom.THRESHOLD)
    assert frontier.most == top
    taken = frontier.at(price)
    shares, accuracies = cloud
    joules = shares @ np.array(energies)
    rivals = (joules < top.energy) & (accuracies >= least) & (accuracies < top.accuracy)
    joules = np.append(joules[rivals], top.energy)
    accuracies = np.append(accuracies[rivals], top.accuracy)
    if price == inf:
        assert (taken.energy <= joules + 1e-12).all()
    else:
        worth = taken.accuracy - price * taken.energy
        assert (worth >= accuracies - price * joules - 1e-9).all()


@given(st.sets(st.tuples(st.integers(1, 1000), st.integers(1, 1000)), min_size=1, max_size=40))
def test_a_hull_is_a_frontier_over_all_points(points: set[tuple[int, int]]) -> None:
    ascending: list[Choice] = []
    for joules, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not ascending or accuracy / 1000 > ascending[-1].accuracy:
            ascending.append(Choice(0, None, float(joules), accuracy / 1000))
    frontier = Frontier(tuple(hull(ascending)))
    assert (frontier.least, frontier.most) == (ascending[0], ascending[-1])
    assert set(frontier.choices) <= set(ascending)


def test_without_thresholds_only_depth_is_chosen(table: Calibration) -> None:
    top = Choice(2, None, ENERGIES[2], table.accuracy(2))
    frontier = Frontiers(table, USEFUL, 0.0).up_to(top, ENERGIES, Freedom.DEPTH)
    assert {choice.threshold for choice in frontier.choices} == {None}
    assert frontier.least.exit == 0


def test_what_is_less_accurate_than_allowed_is_no_choice(table: Calibration) -> None:
    top = Choice(2, None, ENERGIES[2], table.accuracy(2))
    frontier = Frontiers(table, USEFUL, 0.7).up_to(top, ENERGIES, Freedom.THRESHOLD)
    assert frontier.least.accuracy >= 0.7
    assert frontier.least.energy is not None
    assert frontier.least.energy < ENERGIES[1] + 0.05
    strict = Frontiers(table, USEFUL, 0.99).up_to(top, ENERGIES, Freedom.THRESHOLD)
    assert strict.choices == (top,)


@pytest.mark.parametrize(
    ("energies", "freedom"),
    [(ENERGIES, Freedom.NONE), ((0.04, None, 0.17, 0.3), Freedom.THRESHOLD)],
)
def test_nothing_is_chosen_where_it_is_fixed_or_energies_are_unknown(
    table: Calibration, energies: tuple[float | None, ...], freedom: Freedom
) -> None:
    top = Choice(2, None, energies[2], table.accuracy(2))
    frontiers = Frontiers(table, USEFUL, 0.0)
    frontier = frontiers.up_to(top, energies, freedom)
    assert frontier.choices == (top,)
    assert frontiers.up_to(top, energies, freedom) is frontier


def test_a_frontier_is_made_anew_only_for_other_energies(table: Calibration) -> None:
    top = Choice(2, None, ENERGIES[2], table.accuracy(2))
    frontiers = Frontiers(table, USEFUL, 0.0)
    first = frontiers.up_to(top, ENERGIES, Freedom.THRESHOLD)
    assert frontiers.up_to(top, (*ENERGIES[:3], 9.0), Freedom.THRESHOLD) is first
    dearer = frontiers.up_to(top, (0.05, *ENERGIES[1:]), Freedom.THRESHOLD)
    assert dearer is not first
    assert dearer.least.energy == pytest.approx(0.05)


def test_many_threads_may_ask_while_what_is_kept_is_cleared(
    table: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT", 1)
    frontiers = Frontiers(table, USEFUL, 0.0)
    tops = [Choice(exit, None, ENERGIES[exit], table.accuracy(exit)) for exit in USEFUL]

    def ask(first: int) -> bool:
        turns = [tops[(first + turn) % 3] for turn in range(2000)]
        return all(frontiers.up_to(top, ENERGIES, Freedom.NONE).most == top for top in turns)

    pause = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, range(4)))
    finally:
        sys.setswitchinterval(pause)
