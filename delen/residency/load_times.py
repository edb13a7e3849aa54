"""How long it will take to load a segment."""

from __future__ import annotations

from collections import defaultdict, deque

_REMEMBERED = 4
_FIRST_RATE = 50e6
"""Bytes a second, before anything was loaded: a slow card."""


class LoadTimes:
    """Loads that were measured, in seconds.

    A segment that was loaded before is predicted to take the longest of its last few times, any
    other one as long as the slowest of the last loads would for its bytes.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[tuple[str, int], deque[float]] = defaultdict(
            lambda: deque(maxlen=_REMEMBERED)
        )
        self._rates: deque[float] = deque(maxlen=_REMEMBERED)

    def add(self, model: str, segment: int, size: int, seconds: float) -> None:
        """It took ``seconds`` to load ``segment``, which takes ``size`` bytes."""
        self._seconds[model, segment].append(seconds)
        if seconds > 0:
            self._rates.append(size / seconds)

    def predict(self, model: str, segment: int, size: int) -> float:
        known = self._seconds.get((model, segment))
        if known:
            return max(known)
        return size / (min(self._rates) if self._rates else _FIRST_RATE)
