"""The open loop: every request is sent at its time, however late answers arrive."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from delen.core.result import Result
from delen.errors import (
    DaemonUnreachable,
    DelenError,
    Forbidden,
    InvalidInput,
    MissingExtra,
    ModelNotFound,
    Unauthorized,
)
from delen.replay.record import Record
from delen.simulate.trace import Arrival, Trace

_HOPELESS = (
    DaemonUnreachable,
    Forbidden,
    InvalidInput,
    MissingExtra,
    ModelNotFound,
    Unauthorized,
)
"""After one of these errors the other requests would fail as well."""

_STEPS = 100


class Target(Protocol):
    """Where requests are sent."""

    async def ask(self, arrival: Arrival, number: int) -> Result:
        """The answer to input ``number`` of the arrival's model. Raises the refusal, OSError or
        EOFError if the connection broke, and DaemonUnreachable if none can be made."""

    async def check(self) -> None:
        """DaemonUnreachable if the target is gone."""

    async def close(self) -> None: ...


class OpenLoop:
    """Replays ``trace`` once. ``inputs`` are the numbers of the inputs. It waits for an answer for
    ``timeout`` seconds. While ``most`` requests are under way, others that are due are not sent.

    A thread keeps the time, since asyncio's timers are late by up to a millisecond.
    """

    def __init__(
        self,
        trace: Trace,
        inputs: NDArray[np.int64],
        target: Target,
        record: Record,
        timeout: float,
        most: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._arrivals = trace.arrivals
        self._inputs: list[int] = inputs.tolist()
        self._due: list[float] = record.due.tolist()
        self._target = target
        self._record = record
        self._timeout = timeout
        self._most = most
        self._progress = progress
        self._step = max(1, len(trace) // _STEPS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._next = 0
        self._woken = False
        self._halt = threading.Event()
        self._start = 0.0

    async def run(self) -> None:
        """Run until all requests have ended. Raises an error after which the rest would fail."""
        if not self._due:
            return
        loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = loop.create_future()
        self._start = time.monotonic()
        timer = threading.Thread(
            target=self._keep_time, args=(loop,), name="delen-timer", daemon=True
        )
        timer.start()
        try:
            await self._finished
        finally:
            self._halt.set()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            timer.join()

    def _now(self) -> float:
        return time.monotonic() - self._start

    def _keep_time(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake ``loop`` when a request is due, unless it is already woken."""
        for due in self._due:
            left = due - self._now()
            if left > 0:
                self._halt.wait(left)
            if self._halt.is_set():
                return
            if not self._woken:
                self._woken = True
                loop.call_soon_threadsafe(self._begin_due)

    def _begin_due(self) -> None:
        self._woken = False  # before the clock is read: a request that is due later wakes it again
        now, count = self._now(), len(self._due)
        while self._next < count and self._due[self._next] <= now:
            self._begin(self._next)
            self._next += 1
            if self._progress is not None and self._next % self._step == 0:
                self._progress(self._next, count)
        self._end_if_done()

    def _begin(self, row: int) -> None:
        if len(self._tasks) >= self._most:
            self._record.failed(row, self._now(), "not_sent")
            return
        task = asyncio.get_running_loop().create_task(self._ask(row))
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._finished.done():
            self._finished.set_exception(error)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._next == len(self._due) and not self._tasks and not self._finished.done():
            self._finished.set_result(None)

    async def _ask(self, row: int) -> None:
        record = self._record
        record.sent(row, self._now())
        asked = self._target.ask(self._arrivals[row], self._inputs[row])
        try:
            result = await asyncio.wait_for(asked, self._timeout)
        except asyncio.TimeoutError:
            record.failed(row, self._now(), "timeout")
        except (OSError, EOFError):
            record.failed(row, self._now(), "broken")
            await self._target.check()
        except _HOPELESS:
            raise
        except DelenError as error:
            record.refused(row, self._now(), error)
        else:
            record.answered(row, self._now(), result)
