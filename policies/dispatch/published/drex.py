"""DREX (Liu et al., 2025): at an exit, the survivors are held and rebatched only if it pays.

b survivors of a batch may go on at once, or be held until x more come from the samples behind
them. Held, the rest of the network runs once on b + x, which saves
``t(b) + t(x) - t(b + x)``; rebatching costs an overhead. They are held only if the saving is
larger and every one of them keeps its deadline. x is foreseen from the share of samples that have
gone on at exits so far.
"""

from __future__ import annotations

from collections.abc import Mapping

from delen.core.dispatch import Group, Key, ModelView, PolicyCapabilities, Ran, Task, Turn
from policies.dispatch.batching import first_in_rank, join

_OVERHEAD = 0.05
"""Of a rebatch, as a share of the segment it is for on one sample."""

_WEIGHT = 0.02
"""Of the latest task in the share that goes on."""


class Drex:
    """Keeps how many segments tasks run before they end, and so how many go on at an exit."""

    name = "drex"
    capabilities = PolicyCapabilities(admits=False, guards=False)

    def __init__(self) -> None:
        self._segments: dict[str, float] = {}

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        urgent = first_in_rank(waiting.values())
        view = models[urgent.model]
        groups = [group for key, group in waiting.items() if key.model == urgent.model]
        groups.sort(key=lambda group: group.key.segment, reverse=True)
        chosen = groups[0]
        for behind in groups[1:]:
            if not self._pays(chosen, behind, now, view):
                break
            chosen = behind
        return Turn(run=join(chosen.first(1)[0], chosen, now, view))

    def _pays(self, held: Group, behind: Group, now: float, view: ModelView) -> bool:
        lead, segment = held.first(1)[0], held.key.segment
        count = min(len(held), view.max_batch)
        going_on = 1 - 1 / self._segments.get(lead.model, float(view.exits))
        coming = min(len(behind), view.max_batch) * going_on ** (segment - behind.key.segment)
        more = min(round(coming), view.max_batch - count)
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

    def ran(self, now: float, ran: Ran) -> None:
        """Nothing to learn."""

    def ended(self, now: float, task: Task) -> None:
        if task.exit >= 0:
            known = self._segments.get(task.model, task.exit + 1.0)
            self._segments[task.model] = known + _WEIGHT * (task.exit + 1 - known)
