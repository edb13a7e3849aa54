"""What hangs in the engine, and which segments keep failing."""

from __future__ import annotations

from collections.abc import Collection
from math import inf
from typing import NamedTuple

from delen.core.crash_guard import FIRST_LANE, CrashGuard
from delen.core.dispatch import Key
from delen.core.variant import model_of
from delen.errors import ModelLoading
from delen.scheduler.lanes import Batch

DECISION_HANGS = 5.0
"""Seconds after which a dispatch policy that has not returned is said to hang."""

SEGMENT_HANGS = 30.0
"""Seconds after which a segment that has not returned is said to hang where nothing else is set."""

_TIMES_PREDICTED = 20.0
"""A segment may take so many times as long as it is predicted to, if that is more."""

_IN_A_ROW = 3
"""A segment keeps failing when so many of its batches failed one after another."""

_COMES_BACK = 10.0
"""Seconds after which a client tries a model that hangs again."""


class Call(NamedTuple):
    """What was called ``seconds`` ago; after ``limit`` seconds it is said to hang."""

    what: str
    seconds: float
    limit: float

    @property
    def is_overdue(self) -> bool:
        return self.seconds > self.limit

    def __str__(self) -> str:
        return f"{self.what} has not returned for {self.seconds:.1f} s"


class EngineHealth:
    """Lanes write it, each for itself or under the executor's lock. It is read without that lock,
    which what hangs may hold. Times are in seconds, ``time.monotonic``. ``models`` are the names of
    those that are served; a segment hangs after ``segment_hangs`` seconds. ``guard`` is told what
    runs."""

    def __init__(
        self,
        lanes: int,
        models: Collection[str] = (),
        segment_hangs: float = SEGMENT_HANGS,
        guard: CrashGuard | None = None,
    ) -> None:
        self._models = models
        self._segment_hangs = segment_hangs
        self._guard = guard or CrashGuard()
        self._policy_called = inf
        self._running: list[Batch | None] = [None] * lanes
        self._noted = [""] * lanes
        self._left: list[Batch] = []
        self._failed: dict[Key, int] = {}

    def policy_called(self, now: float) -> None:
        self._policy_called = now

    def policy_returned(self) -> None:
        self._policy_called = inf

    def batch_began(self, lane: int, batch: Batch) -> None:
        self._running[lane] = batch
        if batch.key.model != self._noted[lane]:
            self._noted[lane] = batch.key.model
            self._guard.began(FIRST_LANE + lane, batch.key.model)

    def batch_ended(self, lane: int, batch: Batch) -> None:
        """``batch`` has returned, which its lane may have left behind."""
        if self._running[lane] is batch:
            self._running[lane] = None

    def hanging(self, now: float) -> list[tuple[int, Batch]]:
        """The lanes whose batches hang, and these."""
        return [
            (lane, batch)
            for lane, batch in enumerate(list(self._running))
            if batch is not None and self._call(batch, now).is_overdue
        ]

    def leave(self, lane: int, batch: Batch, seen: float) -> bool:
        """``lane`` goes on without ``batch``, which was ``seen`` to hang; False if that has
        returned since, or goes on with its next segment."""
        if self._running[lane] is not batch or not self._call(batch, seen).is_overdue:
            return False
        self._running[lane] = None
        self._guard.ended(FIRST_LANE + lane)
        self._noted[lane] = ""
        self._left.append(batch)
        return True

    def came_back(self, batch: Batch) -> None:
        """A batch that its lane had left has returned."""
        self._left.remove(batch)

    def segment_failed(self, key: Key) -> None:
        self._failed[key] = self._failed.get(key, 0) + 1

    def segment_worked(self, key: Key) -> None:
        if self._failed:
            self._failed.pop(key, None)

    def forget_model(self, name: str) -> None:
        for key in [key for key in self._failed if key.model == name]:
            self._failed.pop(key, None)

    def hung_models(self) -> set[str]:
        """The models that wait for a batch which their lane has left."""
        return {model_of(batch.key.model) for batch in list(self._left)}

    def problem_of(self, model: str) -> str | None:
        """Why ``model`` is refused though it is loaded; None if it is not."""
        return str(hung(model)) if model in self.hung_models() else None

    def hangs(self, now: float) -> list[str]:
        """A sentence for each call that should have returned by ``now`` and keeps all else waiting.
        A batch that its lane has left does so where no other model is served."""
        calls = [call for call in self._calls(now) if call.is_overdue]
        if self._is_stuck:
            calls += self._left_calls(now)
        return [str(call) for call in calls]

    def under_way(self, now: float) -> list[Call]:
        """The calls that have not returned."""
        return [*self._calls(now), *self._left_calls(now)]

    @property
    def _is_stuck(self) -> bool:
        """Whether every model hangs that is served."""
        return not set(self._models) - self.hung_models()

    def _calls(self, now: float) -> list[Call]:
        calls = []
        if self._policy_called < inf:
            waited = now - self._policy_called
            calls.append(Call("the dispatch policy", waited, DECISION_HANGS))
        running = [batch for batch in list(self._running) if batch is not None]
        return calls + [self._call(batch, now) for batch in running]

    def _left_calls(self, now: float) -> list[Call]:
        return [self._call(batch, now) for batch in list(self._left)]

    def _call(self, batch: Batch, now: float) -> Call:
        limit = max(self._segment_hangs, _TIMES_PREDICTED * batch.predicted)
        what = f"segment {batch.key.segment} of {batch.key.model}"
        return Call(what, now - batch.began, limit)

    def failing(self, now: float) -> list[str]:
        """A sentence for each segment that keeps failing, or for which its model alone is
        refused."""
        left = [] if self._is_stuck else self._left_calls(now)
        return [
            *(f"{call}; its model is refused until then" for call in left),
            *(
                f"segment {key.segment} of {key.model} has failed {times} times in a row"
                for key, times in sorted(self._failed.copy().items())
                if times >= _IN_A_ROW
            ),
        ]


def hung(name: str) -> ModelLoading:
    """The refusal of a model that hangs."""
    return ModelLoading(
        f"model {name!r} hangs: one of its segments has not returned; it is served again once that "
        "has, or after a restart",
        retry_after=_COMES_BACK,
    )
