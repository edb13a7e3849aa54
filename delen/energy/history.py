"""The windows of the last hour."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from delen.core.energy_status import LONGEST_HISTORY, BoardEnergy, WindowStatus
from delen.core.work import Split


class History:
    """Keeps windows for ``seconds``, and the board's energy over all that were ever measured.

    Not locked: the caller sees to it that one thread at a time is in it.
    """

    def __init__(self, seconds: float = LONGEST_HISTORY) -> None:
        self._seconds = seconds
        self._windows: deque[WindowStatus] = deque()
        self._count = 0
        self._energy = BoardEnergy()

    @property
    def count(self) -> int:
        """Windows since the start."""
        return self._count

    @property
    def energy(self) -> BoardEnergy:
        return self._energy

    @property
    def latest(self) -> WindowStatus | None:
        return self._windows[-1] if self._windows else None

    def add(self, window: WindowStatus, split: Split) -> None:
        """Take in a window that was closed as ``split``."""
        self._count += 1
        self._windows.append(window)
        while self._windows[0].time < window.time - self._seconds:
            self._windows.popleft()
        if split.idle is not None and split.other is not None:
            total = self._energy
            self._energy = replace(
                total,
                attributed=total.attributed + split.attributed,
                idle=total.idle + split.idle,
                other=total.other + split.other,
            )

    def since(self, time: float) -> list[WindowStatus]:
        """The windows that ended after ``time`` (seconds since 1970), oldest first."""
        return [window for window in self._windows if window.time > time]
