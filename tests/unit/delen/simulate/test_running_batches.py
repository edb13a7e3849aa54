from __future__ import annotations

from math import inf

import pytest

from delen.core.dispatch import Key
from delen.scheduler.lanes import Batch
from delen.simulate.running_batches import RunningBatches


def batch(number: int) -> Batch:
    return Batch(Key("m", number), (), 0.0, 0.0, 0.0, [0.0])


def test_one_alone_takes_its_time() -> None:
    running, one = RunningBatches((1.0, 1.5)), batch(0)
    assert running.next_end == inf
    running.start(2.0, one, 0.5)
    assert (running.next_end, len(running)) == (2.5, 1)
    assert running.end()[1] is one
    assert (running.next_end, len(running)) == (inf, 0)


def test_those_that_run_slow_each_other_while_they_do() -> None:
    """The first has done 1 s of 2 when the second, of 2 s, joins: its other second takes 1.5.
    By then the second has done 1 s, and does the other alone."""
    running, first, second = RunningBatches((1.0, 1.5)), batch(0), batch(1)
    running.start(0.0, first, 2.0)
    running.start(1.0, second, 2.0)
    assert running.next_end == pytest.approx(2.5)
    assert running.end()[1] is first
    assert running.next_end == pytest.approx(3.5)
    assert running.end()[1] is second


def test_for_more_than_are_known_the_last_factor_holds() -> None:
    running = RunningBatches((1.0, 2.0))
    for number in range(4):
        running.start(0.0, batch(number), 1.0)
    assert running.next_end == pytest.approx(2.0)
