"""Clockwork (Gujarati et al., OSDI 2020): predict, and refuse what would be late.

Every request has a latest start, its deadline less the predicted time of its whole plan. One that
is past it is refused. The one with the earliest deadline is served next, in the largest batch
that still starts before the latest start of each. What has started runs to its end.
"""

from __future__ import annotations

from collections.abc import Mapping

from delen.core.dispatch import Group, Key, ModelView, NoFeedback, PolicyCapabilities, Task, Turn
from policies.dispatch.published.shared import first_in_rank, join

_LOOK = 8
"""This many are looked at for refusal at a time; the scheduler asks again for the next."""


class Clockwork(NoFeedback):
    """Started batches first; else the new ones by deadline, those too late refused."""

    name = "clockwork"
    capabilities = PolicyCapabilities(admits=False, guards=False)

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        started = [group for key, group in waiting.items() if key.segment > 0]
        if started:
            lead = first_in_rank(started)
            view = models[lead.model]
            return Turn(run=waiting[Key(lead.model, lead.segment)].first(view.max_batch))
        overdue = [
            task
            for group in waiting.values()
            for task in group.first(_LOOK)
            if now + models[task.model].latency_upper(0, task.last, 1) > task.deadline
        ]
        if overdue:
            return Turn(refuse=overdue)
        lead = first_in_rank(waiting.values())
        return Turn(run=join(lead, waiting[Key(lead.model, 0)], now, models[lead.model]))

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        if task.segment > 0:
            return True
        return now + models[task.model].latency_upper(0, task.last, 1) <= task.deadline
