"""Earliest deadline first (Liu and Layland, JACM 1973), preempting at exits, with batches.

It deviates in one point: the daemon's admission refuses what cannot be in time under the load.
Under overload the rule alone serves what is late already.
"""

from __future__ import annotations

from collections.abc import Mapping

from delen.core.dispatch import Group, Key, ModelView, NoFeedback, PolicyCapabilities, Task, Turn
from policies.dispatch.published.shared import first_in_rank, join


class Edf(NoFeedback):
    """Serves in order of rank: share, priority, deadline, arrival."""

    name = "edf"
    capabilities = PolicyCapabilities(guards=False)

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        lead = first_in_rank(waiting.values())
        group = waiting[Key(lead.model, lead.segment)]
        return Turn(run=join(lead, group, now, models[lead.model]))

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        return True
