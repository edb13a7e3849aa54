"""What hangs in the engine, and which segments keep failing."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from delen.core.dispatch import Key

DECISION_HANGS = 5.0
"""Seconds after which a dispatch policy that has not returned is said to hang."""

SEGMENT_HANGS = 30.0
"""Seconds after which a segment that has not returned is said to hang, or as many times as long as
it is predicted to take as ``_TIMES_PREDICTED`` says, if that is more."""

_TIMES_PREDICTED = 20.0
_IN_A_ROW = 3
"""A segment keeps failing when so many of its batches failed one after another."""


class Call(NamedTuple):
    """What was called ``seconds`` ago; after ``limit`` seconds it is said to hang."""

    what: str
    seconds: float
    limit: float

    def __str__(self) -> str:
        return f"{self.what} has not returned for {self.seconds:.1f} s"


class EngineHealth:
    """Lanes write it, each for itself or under the executor's lock. It is read without that lock,
    which what hangs may hold. Times are in seconds, ``time.monotonic``."""

    def __init__(self, lanes: int) -> None:
        self._policy_called = inf
        self._running: list[tuple[float, float, Key] | None] = [None] * lanes
        self._failed: dict[Key, int] = {}

    def policy_called(self, now: float) -> None:
        self._policy_called = now

    def policy_returned(self) -> None:
        self._policy_called = inf

    def batch_began(self, lane: int, now: float, predicted: float, key: Key) -> None:
        self._running[lane] = now, predicted, key

    def batch_ended(self, lane: int) -> None:
        self._running[lane] = None

    def segment_failed(self, key: Key) -> None:
        self._failed[key] = self._failed.get(key, 0) + 1

    def segment_worked(self, key: Key) -> None:
        if self._failed:
            self._failed.pop(key, None)

    def forget_model(self, name: str) -> None:
        for key in [key for key in self._failed if key.model == name]:
            self._failed.pop(key, None)

    def hangs(self, now: float) -> list[str]:
        """A sentence for each call that should have returned by ``now``."""
        return [str(call) for call in self.under_way(now) if call.seconds > call.limit]

    def under_way(self, now: float) -> list[Call]:
        """The calls that have not returned."""
        calls = []
        if self._policy_called < inf:
            waited = now - self._policy_called
            calls.append(Call("the dispatch policy", waited, DECISION_HANGS))
        for running in list(self._running):
            if running is not None:
                began, predicted, key = running
                limit = max(SEGMENT_HANGS, _TIMES_PREDICTED * predicted)
                what = f"segment {key.segment} of {key.model}"
                calls.append(Call(what, now - began, limit))
        return calls

    def failing(self) -> list[str]:
        """A sentence for each segment that keeps failing."""
        return [
            f"segment {key.segment} of {key.model} has failed {times} times in a row"
            for key, times in sorted(self._failed.copy().items())
            if times >= _IN_A_ROW
        ]
