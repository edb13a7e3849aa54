"""The windows of the last hour, and those of the last day in longer steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from delen.core.energy_status import LONGEST_HISTORY, BoardEnergy, WindowStatus
from delen.core.work import Split

Rows = deque[tuple[float, WindowStatus]]
"""Windows by their end on the accounting's clock, which no change of the date can move."""


class History:
    """Keeps windows for ``fine`` seconds, then in steps of ``step`` seconds up to ``longest``, and
    the board's energy over all that were ever measured.

    Not locked: the caller sees to it that one thread at a time is in it.
    """

    def __init__(
        self, fine: float = 3600.0, step: float = 60.0, longest: float = LONGEST_HISTORY
    ) -> None:
        self._fine, self._step, self._longest = fine, step, longest
        self._windows: Rows = deque()
        self._steps: Rows = deque()
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
        return self._windows[-1][1] if self._windows else None

    def add(self, window: WindowStatus, split: Split) -> None:
        """Take in a window that was closed as ``split``."""
        self._count += 1
        self._windows.append((split.ended, window))
        self._merge_old(split.ended)
        if split.idle is not None and split.other is not None:
            total = self._energy
            self._energy = replace(
                total,
                attributed=total.attributed + split.attributed,
                idle=total.idle + split.idle,
                other=total.other + split.other,
            )

    def since(self, began: float, wall: float) -> list[WindowStatus]:
        """The windows and steps that ended after ``began`` (on the accounting's clock), oldest
        first. Their times are by the present date: ``wall`` is the time since 1970 at the moment
        0 of that clock."""
        return [
            replace(window, time=wall + ended)
            for rows in (self._steps, self._windows)
            for ended, window in rows
            if ended > began
        ]

    def _merge_old(self, now: float) -> None:
        """Make one step of windows that have all become too old."""
        while self._windows[0][0] <= now - self._fine - self._step:
            count, seconds = 0, 0.0
            for _, window in self._windows:
                count, seconds = count + 1, seconds + window.seconds
                if seconds >= self._step:
                    break
            old = [self._windows.popleft() for _ in range(count)]
            self._steps.append((old[-1][0], _merged([window for _, window in old])))
        while self._steps and self._steps[0][0] <= now - self._longest:
            self._steps.popleft()


def in_steps(windows: Sequence[WindowStatus], step: float) -> list[WindowStatus]:
    """``windows`` merged to ones of at least ``step`` seconds; the last may be shorter."""
    steps: list[list[WindowStatus]] = []
    seconds = step
    for window in windows:
        if seconds >= step:
            steps.append([])
            seconds = 0.0
        steps[-1].append(window)
        seconds += window.seconds
    return [_merged(each) for each in steps]


def _merged(windows: Sequence[WindowStatus]) -> WindowStatus:
    """One window of several in a row."""
    last = windows[-1]
    rails = {name for window in windows for name in window.rails}
    return replace(
        last,
        seconds=sum(window.seconds for window in windows),
        watts=_mean((window.seconds, window.watts) for window in windows),
        rails={
            name: mean
            for name in sorted(rails)
            if (mean := _mean((w.seconds, w.rails.get(name)) for w in windows)) is not None
        },
        attributed=sum(window.attributed for window in windows),
        idle=_sum(window.idle for window in windows),
        other=_sum(window.other for window in windows),
        kind="attributed" if all(w.kind == "attributed" for w in windows) else "estimated",
    )


def _mean(weighted: Iterable[tuple[float, float | None]]) -> float | None:
    known = [(weight, value) for weight, value in weighted if value is not None]
    total = sum(weight for weight, _ in known)
    return sum(weight * value for weight, value in known) / total if total else None


def _sum(values: Iterable[float | None]) -> float | None:
    """None where one of them is unknown."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total
