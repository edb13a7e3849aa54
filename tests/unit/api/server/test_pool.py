from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from api.server.pool import Pool

PATIENCE = 30.0


class Visit:
    """A connection whose one request is over when the test says so."""

    def __init__(self, name: str, log: list[str], fails: bool = False, comes: bool = True) -> None:
        self.name = name
        self.log = log
        self.fails = fails
        self.comes = comes
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.left = threading.Event()

    def arrives(self) -> bool:
        return self.comes

    def communicate(self) -> bool:
        self.begun.set()
        assert self.may_end.wait(PATIENCE)
        if self.fails:
            raise ValueError("made to fail")
        return True

    def leave(self, keep: bool) -> None:
        self.log.append(f"{self.name} {'kept' if keep else 'closed'}")
        self.left.set()

    def hang_up(self) -> None:
        self.log.append(f"{self.name} hung up")
        self.may_end.set()


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def make_pool() -> Iterator[Callable[[int], Pool]]:
    pools: list[Pool] = []

    def make(threads: int) -> Pool:
        pools.append(Pool(threads))
        pools[-1].start()
        return pools[-1]

    yield make
    for pool in pools:
        pool.stop(PATIENCE)


def test_answers_leave_before_requests_are_read(
    make_pool: Callable[[int], Pool], log: list[str]
) -> None:
    pool, first, read, answer = make_pool(1), *(Visit(name, log) for name in "abc")
    for visit in (read, answer):
        visit.may_end.set()
    pool.put(first)
    assert first.begun.wait(PATIENCE)
    assert not pool.is_crowded
    pool.put(read)
    pool.put_answer(answer)
    assert pool.is_crowded
    first.may_end.set()
    assert read.left.wait(PATIENCE)
    assert log == ["a kept", "c kept", "b kept"]


def test_as_many_as_there_are_threads_at_once(
    make_pool: Callable[[int], Pool], log: list[str]
) -> None:
    pool, visits = make_pool(3), [Visit(name, log) for name in "abc"]
    for visit in visits:
        pool.put(visit)
    assert all(visit.begun.wait(PATIENCE) for visit in visits)
    assert pool.idle == 0
    for visit in visits:
        visit.may_end.set()


def test_a_thread_outlives_a_connection_that_fails(
    make_pool: Callable[[int], Pool], log: list[str], failed: Callable[[str], int]
) -> None:
    pool, bad, good = make_pool(1), Visit("bad", log, fails=True), Visit("good", log)
    for visit in (bad, good):
        visit.may_end.set()
        pool.put(visit)
        assert visit.left.wait(PATIENCE)
    assert log == ["bad closed", "good kept"]
    assert failed("http") == 1


def test_who_brings_nothing_gets_no_thread(
    make_pool: Callable[[int], Pool], log: list[str]
) -> None:
    pool, empty = make_pool(1), Visit("empty", log, comes=False)
    pool.put(empty)
    assert not pool.is_crowded
    pool.stop(PATIENCE)
    assert not empty.begun.is_set()


def test_stopping_does_what_is_there_and_hangs_up_on_who_is_slow(log: list[str]) -> None:
    pool, slow, queued = Pool(1), Visit("slow", log), Visit("queued", log)
    queued.may_end.set()
    pool.start()
    pool.put(slow)
    assert slow.begun.wait(PATIENCE)
    pool.put(queued)
    pool.stop(0.01)
    assert queued.left.wait(PATIENCE)
    assert log == ["slow hung up", "slow kept", "queued kept"]
