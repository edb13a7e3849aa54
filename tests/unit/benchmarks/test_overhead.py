"""Stages get what their functions take themselves."""

from __future__ import annotations

import asyncio
import threading

from benchmarks.overhead import STAGES
from benchmarks.stage_times import StageTimes, timing


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds


def test_a_stage_does_not_pay_for_the_stages_that_it_calls() -> None:
    clock = Clock()
    times = StageTimes(clock)
    inner = times.timed(lambda: clock.pass_seconds(2.0), "inner")

    def call() -> str:
        clock.pass_seconds(1.0)
        inner()
        clock.pass_seconds(4.0)
        return "done"

    clock.pass_seconds(8.0)
    assert times.timed(call, "outer")() == "done"
    clock.pass_seconds(16.0)
    assert times.seconds == {"outer": 5.0, "inner": 2.0}


def test_a_coroutine_pays_for_its_steps_and_not_for_what_runs_between_them() -> None:
    clock = Clock()
    times = StageTimes(clock)

    async def wait() -> str:
        clock.pass_seconds(1.0)
        await asyncio.sleep(0)
        clock.pass_seconds(2.0)
        return "done"

    async def both() -> None:
        other = asyncio.get_running_loop().create_task(asyncio.sleep(0))
        asyncio.get_running_loop().call_soon(clock.pass_seconds, 32.0)
        assert await times.timed(wait, "stage")() == "done"
        await other

    asyncio.run(both())
    assert times.seconds == {"stage": 3.0}


def test_a_failure_ends_its_stage() -> None:
    clock = Clock()
    times = StageTimes(clock)

    def fail() -> None:
        clock.pass_seconds(1.0)
        raise ValueError

    for _ in range(2):
        try:
            times.timed(fail, "stage")()
        except ValueError:
            clock.pass_seconds(8.0)
    assert times.seconds == {"stage": 2.0}


def test_each_thread_has_its_own_stage() -> None:
    times = StageTimes(Clock())
    times.switch("here")
    seen: list[str | None] = []
    thread = threading.Thread(target=lambda: seen.append(times.switch("there")))
    thread.start()
    thread.join()
    assert (seen, times.switch(None)) == ([None], "here")


def test_the_daemon_is_as_before_once_it_is_timed_no_more() -> None:
    functions = [each for stage in STAGES.values() for each in stage]
    before = [getattr(owner, name) for owner, name in functions]
    with timing(STAGES):
        during = [getattr(owner, name) for owner, name in functions]
    assert all(one is not other for one, other in zip(before, during, strict=True))
    assert [getattr(owner, name) for owner, name in functions] == before
