from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from delen.core.result import Result
from delen.errors import DaemonUnreachable, DelenError, InvalidInput, Overloaded
from delen.replay.open_loop import OpenLoop
from delen.replay.record import Record
from delen.simulate.trace import Arrival, Trace

Answer = Callable[[int], Awaitable[Result]]


class FakeTarget:
    """Answers input ``number`` as ``answer`` does; ``alive`` until it is not."""

    def __init__(self, answer: Answer, alive: bool = True) -> None:
        self.asked: list[tuple[str, int]] = []
        self.under_way = self.most = 0
        self.ended: dict[str, int] = {}
        self._answer = answer
        self._alive = alive

    async def ask(self, arrival: Arrival, number: int) -> Result:
        self.asked.append((arrival.tenant, number))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await self._answer(number)
        finally:
            self.under_way -= 1

    async def check(self) -> None:
        if not self._alive:
            raise DaemonUnreachable("gone")

    async def close(self) -> None: ...


def replay(
    target: FakeTarget, count: int, gap: float = 0.0, timeout: float = 5.0, most: int = 100
) -> Record:
    trace = Trace(tuple(Arrival(gap * n, f"t{n}") for n in range(count)))
    due = np.array([arrival.time for arrival in trace])
    record = Record(trace, due, np.zeros(count, np.int64), exits=4)
    numbers = np.arange(count) * 10
    try:
        asyncio.run(OpenLoop(trace, numbers, target, record, timeout, most).run())
    finally:
        target.ended = dict(record.ended)
    return record


def test_each_request_is_sent_with_its_own_input(make_result: Callable[..., Result]) -> None:
    async def answer(number: int) -> Result:
        return make_result()

    target = FakeTarget(answer)
    record = replay(target, 4, gap=0.002)
    assert target.asked == [("t0", 0), ("t1", 10), ("t2", 20), ("t3", 30)]
    assert record.ended == {"answered": 4}
    late = record.client_figures()["sent_late_ms"]
    assert 0 <= late["p50"] <= late["max"], "nothing is sent before its time"


def test_later_requests_do_not_wait_for_earlier_answers(
    make_result: Callable[..., Result],
) -> None:
    async def answer(number: int) -> Result:
        if number == 20:
            came.set()
        await came.wait()
        return make_result()

    came = asyncio.Event()
    target = FakeTarget(answer)
    assert replay(target, 3, gap=0.002).ended == {"answered": 3}
    assert target.most == 3


def test_what_is_due_beyond_the_most_is_not_sent() -> None:
    async def answer(number: int) -> Result:
        await asyncio.sleep(60)
        raise AssertionError

    target = FakeTarget(answer)
    record = replay(target, 5, timeout=0.05, most=2)
    assert record.ended == {"timeout": 2, "not_sent": 3}
    assert (target.most, target.under_way) == (2, 0)


def test_refusals_and_broken_connections_are_counted_and_it_goes_on() -> None:
    errors = [Overloaded("full", 1.0), ConnectionResetError(), EOFError(), DelenError("failed")]

    async def answer(number: int) -> Result:
        raise errors[number // 10]

    record = replay(FakeTarget(answer), 4)
    assert record.ended == {"overloaded": 1, "broken": 2, "internal": 1}


@pytest.mark.parametrize("hopeless", [InvalidInput("no such shape"), DaemonUnreachable("gone")])
def test_it_ends_at_what_all_others_would_meet(
    make_result: Callable[..., Result], hopeless: DelenError
) -> None:
    async def answer(number: int) -> Result:
        if number:
            raise hopeless
        return make_result()

    target = FakeTarget(answer)
    with pytest.raises(type(hopeless)):
        replay(target, 1000, gap=0.01)
    assert target.ended == {"answered": 1}


def test_a_broken_connection_to_nobody_ends_it() -> None:
    async def answer(number: int) -> Result:
        raise ConnectionResetError

    target = FakeTarget(answer, alive=False)
    with pytest.raises(DaemonUnreachable):
        replay(target, 1000, gap=0.01)


def test_an_empty_trace_is_over_at_once() -> None:
    async def answer(number: int) -> Result:
        raise AssertionError

    assert len(replay(FakeTarget(answer), 0)) == 0
