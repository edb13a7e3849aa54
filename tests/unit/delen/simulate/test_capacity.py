from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.simulate.capacity import Capacity, Trial, find_capacity
from delen.simulate.mean_interval import Mean

MOST = 1000


def search(violations: dict[int, float], reach: float = 0.0, most: int = MOST) -> Capacity:
    """By ``violations`` from a number of cameras on."""

    def play(cameras: int) -> Trial:
        mean = max((share for least, share in violations.items() if cameras >= least), default=0.0)
        return Trial(cameras, Mean(mean, reach), Mean(0.9, 0.0), None)

    return find_capacity(play, 0.01, most)


@given(st.integers(1, MOST))
def test_it_finds_the_last_number_that_keeps_the_limit_in_few_trials(first_that_fails: int) -> None:
    found = search({first_that_fails: 0.5})
    assert found.cameras == found.low == found.high == first_that_fails - 1
    beyond = found.at(found.cameras + 1)
    assert beyond is not None and beyond.violations.mean > 0.01
    assert len(found.trials) <= 20
    assert list(found.trials) == sorted(found.trials)


def test_not_one_camera_may_be_kept() -> None:
    found = search({1: 1.0})
    assert (found.cameras, found.low, found.high) == (0, 0, 0)
    assert [trial.cameras for trial in found.trials] == [1]


def test_it_stops_at_the_most() -> None:
    assert search({}, most=100).cameras == 100
    assert search({101: 1.0}, most=100).cameras == 100


def test_the_interval_has_what_is_sure_and_what_may_be() -> None:
    found = search({10: 0.004, 20: 0.008, 30: 0.012, 40: 0.02}, reach=0.005)
    assert (found.low, found.cameras, found.high) == (19, 29, 39)


@pytest.mark.parametrize("cameras", [1, 2, 3])
def test_a_number_is_tried_once(cameras: int) -> None:
    tried: list[int] = []

    def play(number: int) -> Trial:
        tried.append(number)
        return Trial(number, Mean(float(number > cameras), 0.1), Mean(0.5, 0.1), None)

    assert find_capacity(play, 0.2, MOST).cameras == cameras
    assert len(tried) == len(set(tried))


def test_the_interval_of_a_mean_is_that_of_student() -> None:
    mean = Mean.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean.mean == 3.0
    assert mean.reach == pytest.approx(1.963, abs=0.003)
    assert (mean.low, mean.high) == pytest.approx((1.037, 4.963), abs=0.003)
    assert Mean.of([2.0]) == Mean(2.0, None)
    assert Mean.of([2.0]).low == Mean.of([2.0]).high == 2.0
