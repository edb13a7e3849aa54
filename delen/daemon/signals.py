"""Signals, from the first moment of the process on."""

from __future__ import annotations

import os
import select
import signal

SERVED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class SignalPipe:
    """A pipe from which each signal is read, once, and into which other threads may write.

    A burst of signals reaches other threads, too, and then wakes no main thread that waits for a
    lock; a pipe wakes it always.
    """

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in SERVED:
            signal.signal(number, lambda number, frame: None)

    def wait(self, seconds: float) -> int | None:
        """The next number, None where none comes in ``seconds``."""
        readable, _, _ = select.select([self._reading], [], [], seconds)
        return os.read(self._reading, 1)[0] if readable else None

    def send(self, number: int) -> None:
        """Have ``number`` read, which need not be a signal's."""
        os.write(self._writing, bytes([number]))
