"""DREX (Liu et al., 2025): at an exit, the survivors wait and are rebatched only if it pays.

b survivors of a batch may go on at once, or wait until x more arrive from the samples behind them.
Then the rest of the network runs once on b + x, which saves ``t(b) + t(x) - t(b + x)``; rebatching
costs an overhead. They wait only if the saving is larger and every one of them keeps its deadline.
x is predicted from the share of samples that have gone on at exits so far.
"""

from __future__ import annotations

from collections.abc import Mapping

from delen.core.dispatch import Group, Key, ModelView, NoFeedback, PolicyCapabilities, Task, Turn
from policies.dispatch.published.shared import catch_up

_OVERHEAD = 0.05
"""The cost of rebatching, as a share of the segment on one sample."""

_WEIGHT = 0.02
"""The weight of the latest task in the share that goes on."""


class Drex(NoFeedback):
    """Keeps how many segments tasks run before they end, and so how many go on at an exit."""

    name = "drex"
    capabilities = PolicyCapabilities(admits=False, guards=False)

    def __init__(self) -> None:
        self._segments: dict[str, float] = {}

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        return catch_up(now, waiting, models, self._pays)

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        return True

    def _pays(self, now: float, survivors: Group, behind: Group, view: ModelView) -> bool:
        """Whether waiting for the samples ``behind`` and rebatching pays for ``survivors``."""
        lead, segment = survivors.first(1)[0], survivors.key.segment
        count = min(len(survivors), view.max_batch)
        going_on = 1 - 1 / self._segments.get(lead.model, float(view.exits))
        expected = min(len(behind), view.max_batch) * going_on ** (segment - behind.key.segment)
        more = min(round(expected), view.max_batch - count)
        if more <= 0:
            return False
        both = view.typical(segment, lead.last, count + more)
        apart = view.typical(segment, lead.last, count) + view.typical(segment, lead.last, more)
        if apart - both <= _OVERHEAD * view.typical(segment, segment, 1):
            return False
        until = view.latency_upper(
            behind.key.segment, segment - 1, min(len(behind), view.max_batch)
        )
        return now + until + view.latency_upper(segment, lead.last, count + more) <= lead.deadline

    def ended(self, now: float, task: Task) -> None:
        if task.exit >= 0:
            known = self._segments.get(task.model, task.exit + 1.0)
            self._segments[task.model] = known + _WEIGHT * (task.exit + 1 - known)
