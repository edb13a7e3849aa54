"""Dysta (Fan et al., MICRO 2023): at each layer, the task with the least dynamic score.

``score = γ * remaining + β * (max(0, slack - γ * remaining) + idle / n)``: remaining is a profiled
time, idle is how long ago the task last ran, or came (as in the authors' code), n tasks wait. Tasks
run alone, as there.

It deviates in three points. There idle is divided by the task's isolated time and added to seconds;
here it stays in seconds, as its weight would depend on the unit of time. γ corrects the profile
by the time that segments took, there by measured sparsity. Not every task is scored, only the first
few of each group and its oldest.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from delen.core.dispatch import (
    Group,
    Key,
    ModelView,
    NoFeedback,
    PolicyCapabilities,
    Ran,
    Task,
    Turn,
)
from policies.dispatch.published.shared import first_and_oldest

_BETA = 0.01
_SCORED = 8
_FOREVER = 60.0
"""The slack of a task without deadline, in seconds."""

_WEIGHT = 0.1
"""Of the latest segment in γ."""


class Dysta(NoFeedback):
    """Keeps γ of each model, learnt from every segment that has run."""

    name = "dysta"
    capabilities = PolicyCapabilities(admits=False, guards=False)

    def __init__(self) -> None:
        self._gamma: dict[str, float] = {}

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        count = sum(map(len, waiting.values()))
        lead, least = None, inf
        for (model, segment), group in waiting.items():
            view, gamma, last, remaining = models[model], self._gamma.get(model, 1.0), -1, 0.0
            for task in first_and_oldest(group, _SCORED):
                if task.last != last:
                    last = task.last
                    remaining = view.typical(segment, last, 1) * gamma
                slack = task.deadline - now
                left = (slack if slack < _FOREVER else _FOREVER) - remaining
                idle = (now - task.waiting_since) / count
                score = remaining + _BETA * ((left if left > 0 else 0.0) + idle)
                if score < least:
                    lead, least = task, score
        return Turn(run=(lead,) if lead else ())

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        return True

    def ran(self, now: float, ran: Ran) -> None:
        known = self._gamma.get(ran.key.model, 1.0)
        self._gamma[ran.key.model] = known + _WEIGHT * (ran.seconds / ran.predicted - known)
