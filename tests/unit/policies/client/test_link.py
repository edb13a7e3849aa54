"""The error-based filter, and what it says of payloads that were not sent."""

from __future__ import annotations

import pytest

from policies.client.error_filter import ErrorFilter
from policies.client.link import LinkEstimate


def test_the_filter_follows_its_formula() -> None:
    smooth = ErrorFilter()
    assert smooth.learn(10.0) == 10.0
    assert smooth.learn(20.0) == 20.0  # the first error is the largest: all of it is believed
    # err = .6·10 + .4·|20 - 20| = 6, err_max = 10: 0.6 of the news
    assert smooth.learn(20.0) == 20.0
    # err = .6·6 + .4·|20 - 30| = 7.6 of 10
    assert smooth.learn(30.0) == pytest.approx(27.6)


def test_the_filter_is_slow_while_it_is_right() -> None:
    smooth = ErrorFilter()
    for value in (10.0, 30.0, *(10.0,) * 8):
        smooth.learn(value)
    before = smooth.value
    assert before is not None
    assert smooth.learn(14.0) - before < 0.5 * (14.0 - before)


def test_equal_observations_have_no_error() -> None:
    smooth = ErrorFilter()
    assert [smooth.learn(5.0) for _ in range(3)] == [5.0] * 3


def test_an_old_error_is_forgotten_after_ten() -> None:
    smooth = ErrorFilter()
    for value in (0.0, 1000.0, *(1000.0,) * 11):
        smooth.learn(value)
    smooth.learn(1001.0)
    assert smooth.value is not None
    assert 1000.0 < smooth.value <= 1001.0


def test_other_payloads_are_predicted_from_the_bandwidth() -> None:
    link = LinkEstimate(round_trip=0.010)
    assert link.predict([1000]) is None
    link.learn(0, 10_000, 0.019)  # 10 kB in 19 - 0.9·10 = 10 ms
    assert link.bandwidth == pytest.approx(1e6)
    assert link.predict([10_000, 30_000]) == pytest.approx([0.020, 0.040])


def test_another_size_begins_the_filter_anew() -> None:
    link = LinkEstimate()
    for _ in range(5):
        link.learn(0, 10_000, 0.010)
    link.learn(1, 20_000, 0.040)
    assert link.bandwidth == pytest.approx(500_000)


def test_a_network_time_below_the_round_trip_is_a_fast_link() -> None:
    link = LinkEstimate(round_trip=0.010)
    link.learn(0, 10_000, 0.001)
    predicted = link.predict([10_000])
    assert predicted is not None
    assert 0.010 <= predicted[0] < 0.011
