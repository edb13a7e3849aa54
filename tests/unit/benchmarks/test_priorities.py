"""What priorities cost is measured on the same requests."""

from __future__ import annotations

import pytest

from benchmarks.dispatch_cells import NANO_NAME, Cell, Size, model_of, trace_of
from benchmarks.priorities import agreeing, costs, prioritised, without

SIZE = Size(200, 1.0)


def test_priorities_that_oppose_deadlines_cost_what_agreeing_ones_do_not() -> None:
    opposed, agreeing = costs(NANO_NAME, 9, 1.5, seeds=1, size=SIZE)
    assert opposed.median > agreeing.median
    assert agreeing.median == pytest.approx(0, abs=0.6)


def test_requests_are_the_same_but_for_their_priorities() -> None:
    trace = trace_of(Cell(NANO_NAME, "inverted", 3, 0.9), model_of(NANO_NAME), SIZE, 0)
    mirrored, plain = prioritised(trace, agreeing), prioritised(trace, without)
    assert {arrival.priority for arrival in plain} == {5}
    for one, other in zip(trace, mirrored, strict=True):
        assert (one.time, one.tenant, one.bounds) == (other.time, other.tenant, other.bounds)
        assert one.priority is not None
        assert one.priority + (other.priority or 0) == 10
