"""The threads that read requests and write answers, and the connections that wait for them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import Protocol

from delen.core.failures import FailureCounter

log = logging.getLogger("delen.http")


class Connection(Protocol):
    """What a pool does with a connection."""

    def arrives(self) -> bool:
        """Something is there to be read. False if it was nothing, and others see to it."""
        ...

    def communicate(self) -> bool:
        """Read requests and write answers as long as there are any; whether to keep it."""
        ...

    def leave(self, keep: bool) -> None:
        """No thread has to do with it now."""
        ...

    def hang_up(self) -> None:
        """Make a thread that reads from it stop."""
        ...


_Box = SimpleQueue["Connection | None"]


class Pool:
    """A pool as cheroot's server wants one (``min``, ``start``, ``put``, ``idle``, ``stop``).

    Answers that are ready leave before new requests are read, else they would wait behind a crowd
    that came later. The thread that was idle for the shortest time is taken, since what it needs
    is still in the caches.
    """

    def __init__(self, threads: int) -> None:
        self.min = threads
        self._answers: deque[Connection] = deque()
        self._requests: deque[Connection] = deque()
        self._idle: list[_Box] = []
        self._threads: list[threading.Thread] = []
        self._served: dict[_Box, Connection] = {}
        self._lock = threading.Lock()
        self._stopping = False
        self.failures = FailureCounter("http", log)

    @property
    def idle(self) -> int:
        """How many threads have nothing to do."""
        return len(self._idle)

    @property
    def is_crowded(self) -> bool:
        """Whether a connection waits for a thread."""
        return bool(self._requests or self._answers)

    def start(self) -> None:
        for number in range(self.min):
            thread = threading.Thread(target=self._work, name=f"delen-http-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def put(self, connection: Connection) -> None:
        """Have the request read that ``connection`` brings."""
        if connection.arrives():
            self._hand(connection, self._requests)

    def put_answer(self, connection: Connection) -> None:
        """Have the answer written that ``connection`` waits for."""
        self._hand(connection, self._answers)

    def stop(self, timeout: float) -> None:
        """Let the threads do what is there, and end. Those that still read after ``timeout``
        seconds read no further."""
        with self._lock:
            self._stopping = True
            idle, self._idle = self._idle, []
        for box in idle:
            box.put(None)
        self._join(timeout)
        for connection in list(self._served.values()):
            connection.hang_up()
        self._join(timeout)

    def _join(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _hand(self, connection: Connection, queue: deque[Connection]) -> None:
        with self._lock:
            if not self._idle:
                queue.append(connection)
                return
            box = self._idle.pop()
        box.put(connection)

    def _next(self, box: _Box) -> Connection | None:
        with self._lock:
            if self._answers:
                return self._answers.popleft()
            if self._requests:
                return self._requests.popleft()
            if self._stopping:
                return None
            self._idle.append(box)
        return box.get()

    def _work(self) -> None:
        box: _Box = SimpleQueue()
        while (connection := self._next(box)) is not None:
            self._served[box] = connection
            keep = False
            try:
                keep = connection.communicate()
            except ConnectionError as error:
                log.info("a client broke off: %r", error)
            except Exception as error:
                self.failures.failed(error, "a connection failed")
            del self._served[box]
            try:
                connection.leave(keep)
            except Exception as error:
                self.failures.failed(error, "a connection failed at its end")
