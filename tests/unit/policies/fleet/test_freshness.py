from __future__ import annotations

import pytest

from policies.fleet.freshness import PATIENCE, SKEW, fresh
from tests.builders.fleet import standing

HOUR = 3600.0


@pytest.mark.parametrize(
    ("age", "counts"),
    [
        (0.0, True),
        (PATIENCE, True),
        (PATIENCE + 0.1, False),
        (HOUR, False),
        (-SKEW, True),
        (-SKEW - 0.1, False),
        (-HOUR, False),
    ],
)
def test_a_standing_counts_while_it_is_young_and_not_from_the_future(
    age: float, counts: bool
) -> None:
    now = 10 * HOUR
    assert bool(fresh([standing("near", now - age)], now)) is counts


def test_only_the_latest_of_a_node_counts() -> None:
    said = [standing("near", 1.0, backlog=1.0), standing("near", 2.0), standing("far", 1.0)]
    assert {(each.node, each.said) for each in fresh(said, 2.0)} == {("near", 2.0), ("far", 1.0)}


def test_one_from_the_future_does_not_hide_one_that_counts() -> None:
    assert [each.said for each in fresh([standing("near", 1.0), standing("near", HOUR)], 1.5)] == [
        1.0
    ]


def test_work_that_waited_is_done_as_time_passes() -> None:
    (aged,) = fresh([standing("near", 1.0, backlog=0.8)], 1.5)
    assert aged.backlog == pytest.approx(0.3)
    (done,) = fresh([standing("near", 1.0, backlog=0.2)], 1.5)
    assert done.backlog == 0
