from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.dynamic_networks import (
    BATCHES,
    Exits,
    Family,
    Measured,
    Networks,
    Request,
    clockwork,
    confident,
    deepest_in,
    play,
    slackfit,
    where_batches_pay,
)
from delen.bundle.calibration import Calibration

TIMES = Measured(
    segments=[[0.001 * size for size in BATCHES]] * 3,
    members=[[0.001 * depth * size for size in BATCHES] for depth in (1, 2, 3)],
    loading=[0.05] * 3,
    segment_bytes=[10, 10, 10],
    member_bytes=[10, 20, 30],
)
WHOLE = [[exit] * 2000 for exit in range(3)]


@pytest.fixture
def exits() -> Exits:
    return Exits(TIMES, WHOLE)


@pytest.fixture
def family() -> Family:
    return Family(TIMES, 60, [0, 1, 2])


def test_a_batch_shrinks_where_samples_leave(exits: Exits) -> None:
    assert exits.answers([2]) == pytest.approx([0.003])
    assert exits.answers([0, 2]) == pytest.approx([0.002, 0.004])


def test_a_member_away_takes_its_load_and_the_one_used_longest_ago_leaves() -> None:
    family = Family(TIMES, 50, [1, 2])
    assert (family.loading(0), family.loading(2)) == (0.05, 0.0)
    family.load(1)
    family.load(0)
    assert family.loaded == [1, 0]
    assert deepest_in(TIMES, 45) == [0, 2]


def test_slackfit_takes_what_fills_the_slack(exits: Exits) -> None:
    queue = [Request(0.0025, 0, None), Request(1.0, 1, None)]
    assert slackfit(0.0, queue, exits, 2).exits == [0, 0]
    assert slackfit(0.0, queue[:1], exits, 2).exits == [1]
    assert slackfit(0.0, queue[1:], exits, 2).exits == [2]
    turn = slackfit(0.002, queue, exits, 2)
    assert (list(turn.refuse), list(turn.run)) == (queue[:1], []), "late whatever is chosen"


def test_clockwork_runs_qualities_together_only_where_they_share_segments(
    exits: Exits, family: Family
) -> None:
    queue = [Request(0.1, 0, 0), Request(0.1, 1, 2), Request(0.1, 2, 0)]
    assert clockwork(0.0, queue, exits, 2).exits == [0, 2, 0]
    assert clockwork(0.0, queue, family, 2).exits == [0, 0]


def test_clockwork_refuses_what_is_late_and_loads_what_was_away(family: Family) -> None:
    late, soon = Request(0.002, 0, 2), Request(0.01, 0, 2)
    turn = clockwork(0.0, [late], family, 2)
    assert (list(turn.refuse), turn.load) == ([late], None)
    turn = clockwork(0.0, [soon], Family(TIMES, 60, [0]), 2)
    assert (list(turn.refuse), turn.load) == ([soon], 2)


@pytest.mark.parametrize("rule", ["slackfit", "clockwork"])
@pytest.mark.parametrize(
    "make", [lambda: Exits(TIMES, WHOLE), lambda: Family(TIMES, 60, [0, 1, 2])]
)
def test_without_load_every_answer_is_in_time(
    make: Callable[[], Networks], rule: str, make_calibration: Callable[..., Calibration]
) -> None:
    table = make_calibration(0.6, 0.7, 0.8, samples=2000)
    outcome = play(make(), rule, table, 0.01, 0.003, seed=0)
    expected = 0.8 if rule == "slackfit" else 0.7
    assert outcome.effective == pytest.approx(expected, abs=0.03)
    assert outcome.loading == 0.0


def test_confident_samples_leave_before(make_calibration: Callable[..., Calibration]) -> None:
    table = make_calibration(0.8, 0.9, 0.9, samples=2000)
    assert set(confident(table, 2)) >= {0, 2}
    assert set(confident(table, 0)) == {0}


def test_where_batches_pay_one_more_takes_a_tenth() -> None:
    paying = where_batches_pay(TIMES)
    assert paying.members[2] == pytest.approx([0.003 * (1 + 0.1 * (n - 1)) for n in BATCHES])
