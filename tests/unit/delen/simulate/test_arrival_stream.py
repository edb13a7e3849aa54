from __future__ import annotations

from math import inf

from delen.simulate.arrival_stream import ArrivalStream
from delen.simulate.trace import Arrival


def test_requests_come_in_turn_with_their_samples() -> None:
    one, two = Arrival(1.0), Arrival(2.0, tenant="other")
    coming = ArrivalStream((one, two), (7, 8), delay=0.5)
    assert coming.next_at == 1.5
    assert coming.take() == (0, one, 7)
    assert coming.next_at == 2.5
    assert coming.take() == (1, two, 8)
    assert coming.next_at == inf


def test_progress_is_told_of_a_hundredth_at_a_time() -> None:
    told: list[tuple[int, int]] = []
    coming = ArrivalStream([Arrival(0.0)] * 300, [0] * 300, 0.0, lambda *at: told.append(at))
    while coming.next_at < inf:
        coming.take()
    assert told == [(done, 300) for done in range(3, 301, 3)]


def test_of_no_requests_none_comes() -> None:
    assert ArrivalStream((), (), 0.0).next_at == inf
