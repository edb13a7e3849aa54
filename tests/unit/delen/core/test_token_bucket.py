from __future__ import annotations

from math import inf

import pytest

from delen.core.token_bucket import TokenBucket


def test_it_fills_at_its_rate_up_to_its_depth() -> None:
    bucket = TokenBucket(rate=2.0, depth=3.0, tokens=0.0, filled=10.0)
    bucket.fill(11.0)
    assert bucket.tokens == 2.0
    bucket.fill(20.0)
    assert bucket.tokens == 3.0


def test_an_earlier_time_changes_nothing() -> None:
    bucket = TokenBucket(rate=2.0, depth=3.0, tokens=1.0, filled=10.0)
    bucket.fill(9.0)
    assert (bucket.tokens, bucket.filled) == (1.0, 10.0)


def test_a_smaller_depth_cuts_off_what_was_saved() -> None:
    bucket = TokenBucket(rate=2.0, depth=3.0, tokens=3.0, filled=0.0)
    bucket.depth = 1.0
    bucket.fill(0.0)
    assert bucket.tokens == 1.0


def test_what_is_spent_too_much_is_a_debt_that_is_waited_for() -> None:
    bucket = TokenBucket(rate=2.0, depth=3.0, tokens=3.0, filled=0.0)
    bucket.spend(5.0)
    assert bucket.wait(1.0) == 1.5
    bucket.fill(1.5)
    assert bucket.tokens == 1.0
    assert bucket.wait(1.0) == 0.0


def test_more_than_the_depth_is_not_waited_for() -> None:
    assert TokenBucket(rate=2.0, depth=3.0, tokens=1.0, filled=0.0).wait(100.0) == 1.0


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_without_a_rate_what_is_missing_never_comes(rate: float) -> None:
    bucket = TokenBucket(rate=rate, depth=3.0, tokens=1.0, filled=0.0)
    assert bucket.wait(1.0) == 0.0
    assert bucket.wait(2.0) == inf


def test_a_bounded_debt_is_paid_off_in_a_bounded_time() -> None:
    bucket = TokenBucket(rate=1.0, depth=3.0, tokens=0.0, filled=0.0, most_debt=3.0)
    bucket.spend(100.0)
    bucket.fill(3.5)
    assert bucket.tokens == 0.5


def test_what_was_taken_too_much_can_be_given_back() -> None:
    bucket = TokenBucket(rate=1.0, depth=3.0, tokens=0.0, filled=0.0)
    bucket.spend(-2.0)
    assert bucket.tokens == 2.0
