"""When the daemon is to end because a thread died or something hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from delen.core.dispatch import Key
from delen.daemon.watchdog import Watchdog
from delen.engine.health import EngineHealth
from delen.errors import SensorFailed
from delen.scheduler.lanes import Batch
from power.sources.probe import _in_time


@contextmanager
def thread_of_ours() -> Iterator[threading.Event]:
    """It ends when the event is set, or with the block."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="delen-test", daemon=True)
    thread.start()
    try:
        yield end
    finally:
        end.set()
        thread.join()


def test_a_thread_that_died_ends_the_daemon() -> None:
    watchdog = Watchdog(EngineHealth(1))
    with thread_of_ours():
        watchdog.watch_threads()
        assert watchdog.problems(0.0) == []
        assert not watchdog.is_over(0.0)
    assert "delen-test" in watchdog.problems(0.0)[0]
    assert watchdog.is_over(0.0)


def test_a_sensor_that_answers_late_is_no_thread_that_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("power.sources.probe._PATIENCE", 0.01)
    before, answer = set(threading.enumerate()), threading.Event()
    with pytest.raises(SensorFailed):
        _in_time(answer.wait)
    (late,) = set(threading.enumerate()) - before
    watchdog = Watchdog(EngineHealth(1))
    watchdog.watch_threads()
    answer.set()
    late.join()
    assert watchdog.problems(0.0) == []


def test_a_policy_that_hangs_is_told_at_once_and_ends_the_daemon_if_it_lasts() -> None:
    health = EngineHealth(1)
    watchdog = Watchdog(health)
    health.policy_called(100.0)
    assert watchdog.problems(104.0) == []
    assert "dispatch policy" in watchdog.problems(106.0)[0]
    assert not watchdog.is_over(106.0)
    assert not watchdog.is_over(130.0)
    assert watchdog.is_over(136.0)


def test_what_hung_and_came_back_ends_nothing() -> None:
    health = EngineHealth(1)
    watchdog = Watchdog(health)
    health.policy_called(100.0)
    assert not watchdog.is_over(106.0)
    health.policy_returned()
    assert not watchdog.is_over(120.0)
    health.policy_called(121.0)
    assert not watchdog.is_over(140.0)


def test_a_segment_may_take_many_times_what_is_predicted() -> None:
    health, batch = EngineHealth(2), Batch(Key("tiny", 2), (), 0.0, 10.0, 10.0, [0.0])
    health.batch_began(1, batch)
    assert health.hangs(199.0) == []
    assert "segment 2 of tiny" in health.hangs(201.0)[0]
    health.batch_ended(1, batch)
    assert health.hangs(201.0) == []


def test_a_batch_that_goes_on_with_its_next_segment_is_not_left() -> None:
    health, batch = EngineHealth(1), Batch(Key("tiny", 0), (), 0.0)
    health.batch_began(0, batch)
    seen = 31.0
    assert health.hanging(seen) == [(0, batch)]
    batch.key, batch.began = Key("tiny", 1), 31.5
    assert not health.leave(0, batch, seen)


def test_a_loop_that_stands_is_told_and_ends_the_daemon_if_it_lasts() -> None:
    behind = 0.0
    watchdog = Watchdog(EngineHealth(1))
    watchdog.watch_loop("HTTP", lambda: 0.0)
    watchdog.watch_loop("gRPC", lambda: behind)
    assert not watchdog.problems(100.0)
    behind = 11.0
    (problem,) = watchdog.problems(100.0)
    assert "gRPC" in problem and "11.0 s" in problem
    assert not watchdog.is_over(100.0)
    behind = 42.0
    assert watchdog.is_over(131.0)
