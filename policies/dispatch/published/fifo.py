"""First in, first out: the task that arrived first runs its next segment, mates join it."""

from __future__ import annotations

from collections.abc import Mapping

from delen.core.dispatch import Group, Key, ModelView, NoFeedback, PolicyCapabilities, Task, Turn
from policies.dispatch.published.shared import join


class Fifo(NoFeedback):
    """Serves in order of arrival, blind to deadlines but for the size of batches."""

    name = "fifo"
    capabilities = PolicyCapabilities(admits=False, guards=False)

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        oldest = (group.oldest for group in waiting.values())
        lead = min(oldest, key=lambda task: (task.arrived, task.id))
        group = waiting[Key(lead.model, lead.segment)]
        return Turn(run=join(lead, group, now, models[lead.model]))

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        return True
