"""The answers of the last minute, for whoever looks at a daemon."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

from delen.core.result import Result
from delen.wire.figures import RecentAnswers, Shares, Times
from delen.wire.message import Milli

SECONDS = 60.0
_MOST = 2000
_LEVELS = (0.5, 0.95, 0.99)

_Answer = tuple[float, int, float, float, float | None, float | None]
"""When it left, its exit, latency, queueing, the bound on its latency, and its accuracy over that
of its plan."""


class RecentLog:
    """The last answers of each model. Whoever adds to it and whoever reads it hold a lock."""

    def __init__(self) -> None:
        self._answers: defaultdict[str, deque[_Answer]] = defaultdict(lambda: deque(maxlen=_MOST))

    def add(self, result: Result, now: float) -> None:
        latency, accuracy = result.receipt.latency, result.receipt.accuracy
        over_plan = None
        if accuracy.overall is not None and accuracy.expected is not None:
            over_plan = accuracy.expected - accuracy.overall
        self._answers[result.model].append(
            (now, result.exit, latency.value, latency.queue, latency.bound, over_plan)
        )

    def of(self, model: str, exits: int, now: float) -> RecentAnswers:
        """The answers of ``model``, which has so many ``exits``, in the last minute; of a shorter
        time where there were more than can be kept."""
        kept = self._answers.get(model, ())
        recent = [answer for answer in kept if answer[0] > now - SECONDS]
        seconds = SECONDS
        if len(recent) == _MOST:
            seconds = max(now - recent[0][0], 1e-3)
        at_exits = [0] * exits
        for _, exit, *_ in recent:
            if exit < exits:
                at_exits[exit] += 1
        parts = [value / bound for _, _, value, _, bound, _ in recent if bound is not None]
        over_plan = [answer[5] for answer in recent if answer[5] is not None]
        return RecentAnswers(
            seconds=seconds,
            answers=len(recent),
            exits=tuple(at_exits),
            latency=_times([answer[2] for answer in recent]),
            queue=_times([answer[3] for answer in recent]),
            of_bound=Shares(*_quantiles(parts)) if parts else None,
            missed=sum(part > 1 for part in parts),
            over_plan=sum(over_plan) / len(over_plan) if over_plan else None,
        )


def _times(seconds: Sequence[float]) -> Times | None:
    return Times(*map(Milli, _quantiles(seconds))) if seconds else None


def _quantiles(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered[min(int(level * len(ordered)), len(ordered) - 1)] for level in _LEVELS]
