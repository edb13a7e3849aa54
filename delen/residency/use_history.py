"""When a model is predicted to be used next, from when it was used before."""

from __future__ import annotations

from collections import deque

_REMEMBERED = 8
_UNKNOWN = 60.0
"""Seconds before the first known use at which the one before it is taken to have been."""
_LEAST = 1e-3


class UseHistory:
    """The last uses of one model, at times in seconds of the caller's clock.

    The next one is predicted as LRU-K ranks pages (O'Neil, O'Neil and Weikum, SIGMOD 1993): by how
    far back the K-th last use lies. Over K that is the mean gap, the one that is still open
    included, so that a model which is used no more moves away.
    """

    def __init__(self) -> None:
        self._times: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)

    def add(self, now: float, depth: int) -> None:
        """It was used, for which its first ``depth`` segments would have been best."""
        self._times.append((now, depth))

    @property
    def depth(self) -> int:
        """The most segments that one of the last uses could have done with."""
        return max((depth for _, depth in self._times), default=0)

    def gap(self, now: float) -> float:
        """Seconds from ``now`` to the next use."""
        if not self._times:
            return _UNKNOWN
        since = now - self._times[0][0]
        if len(self._times) < _REMEMBERED:
            since += _UNKNOWN
        return max(_LEAST, since / len(self._times))
