"""The threads that own the device, one for each lane."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from delen.core.failures import FailureCounter

log = logging.getLogger("delen.engine")

_LONGEST_WAIT = 3600.0
"""Seconds after which an idle lane looks for work, whatever was said; locks take no infinity."""

Work = TypeVar("Work")


class LaneThreads(Generic[Work]):
    """``count`` threads, each of which does one piece of work after another.

    ``find_work`` is called with ``lock`` held. It returns what to do next, or None and the time
    (seconds, ``time.monotonic``) at which to look again unless the thread is woken before. ``do``
    does it, on the lane of this number, and may return what to do next.
    ``died`` is called where ``find_work`` raises, or where what was to do ends the thread: nothing
    can be run from then on.
    """

    def __init__(
        self,
        count: int,
        lock: threading.RLock,
        find_work: Callable[[], tuple[Work | None, float]],
        do: Callable[[Work, int], Work | None],
        died: Callable[[int, BaseException], None],
    ) -> None:
        self._find_work = find_work
        self._do = do
        self._died = died
        self._lock = lock
        self._gates = [threading.Lock() for _ in range(count)]
        self._idle: list[threading.Lock] = []
        for gate in self._gates:
            gate.acquire()
        self._failures = FailureCounter("lane", log)
        self.stopping = False
        self._threads = [self._make(lane) for lane in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Let an idle thread look for work. With the lock held."""
        if self._idle:
            self._idle.pop().release()

    def wake_all(self) -> None:
        while self._idle:
            self.wake()

    def replace(self, lane: int) -> None:
        """Have another thread work on ``lane``: the one there does not return from its work, and
        ends once it does. With the lock held."""
        self._threads[lane].name = f"left-lane-{lane}"
        self._gates[lane] = threading.Lock()
        self._gates[lane].acquire()
        self._threads[lane] = self._make(lane)
        self._threads[lane].start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _make(self, lane: int) -> threading.Thread:
        name, gate = f"delen-lane-{lane}", self._gates[lane]
        return threading.Thread(target=self._loop, args=(lane, gate), name=name, daemon=True)

    def _loop(self, lane: int, gate: threading.Lock) -> None:
        """``gate`` is the lane's for as long as the calling thread works on it."""
        try:
            self._work_on(lane, gate)
        except BaseException as error:
            if self._gates[lane] is gate:
                log.critical("lane %d died", lane, exc_info=error)
                self._died(lane, error)

    def _work_on(self, lane: int, gate: threading.Lock) -> None:
        while self._gates[lane] is gate and (work := self._wait_for_work(gate)) is not None:
            try:
                while work is not None:
                    work = self._do(work, lane)
            except Exception as error:
                self._failures.failed(error, "lane %d failed and goes on with what waits", lane)
            del work  # it may refer to a model, which may be unloaded while this thread is idle

    def _wait_for_work(self, gate: threading.Lock) -> Work | None:
        """None once the threads are stopping and nothing is left to do. ``gate`` is that of the
        calling thread, which waits for its release."""
        with self._lock:
            work, wake_at = self._find_work()
            while work is None and not self.stopping:
                self._wait(gate, min(_LONGEST_WAIT, max(0.0, wake_at - time.monotonic())))
                work, wake_at = self._find_work()
            return work

    def _wait(self, gate: threading.Lock, seconds: float) -> None:
        """As a Condition of the lock waits, without making a new lock for it each time."""
        self._idle.append(gate)
        self._lock.release()
        try:
            gate.acquire(timeout=seconds)
        finally:
            self._lock.acquire()
            if gate in self._idle:
                self._idle.remove(gate)
            else:
                gate.acquire(blocking=False)  # it was woken when the time was over
