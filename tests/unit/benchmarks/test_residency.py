from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from benchmarks.residency import REQUESTS, BySegments, Memory, WholeByLastUse, play, requests

SIZES = (10_000, 20_000, 70_000)
ACCURACIES = (0.7, 0.8, 0.9)


@pytest.mark.parametrize(
    "make",
    [
        partial(BySegments, SIZES, ACCURACIES, run=0.001),
        partial(WholeByLastUse, SIZES),
    ],
)
def test_with_room_for_all_every_request_gets_the_last_exit(make: Callable[..., Memory]) -> None:
    exits = play(make(cap=3 * sum(SIZES)), requests(0, 100))
    assert len(exits) == REQUESTS
    assert exits.count(len(SIZES) - 1) > 0.99 * REQUESTS


def test_with_less_room_first_exits_answer_where_whole_models_are_away() -> None:
    asked = requests(0, 100)
    cap = sum(SIZES) + 40_000
    by_segments = play(BySegments(SIZES, ACCURACIES, cap, 0.001), asked)
    whole = play(WholeByLastUse(SIZES, cap), asked)
    assert by_segments.count(-1) < 0.1 * whole.count(-1)
