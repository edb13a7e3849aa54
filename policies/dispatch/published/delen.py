"""Dělen (Liang et al., IoTDI 2023): static conditions, one job at a time in order of arrival.

A job runs alone, segment after segment, until the condition of an exit holds. The conditions are
those that state its bounds: response time >= cap, or energy >= cap, and, where an application
sets one, confidence >= threshold. They are looked at once an exit has been reached, not ahead:
the exit that passes a cap is the one that stops.
"""

from __future__ import annotations

from collections.abc import Mapping

from delen.core.dispatch import Group, Key, ModelView, NoFeedback, PolicyCapabilities, Task, Turn


class StaticConditions(NoFeedback):
    """``confidence`` is the application's threshold; None: it has none."""

    name = "delen"
    capabilities = PolicyCapabilities(plans=False, admits=False, guards=False)

    def __init__(self, confidence: float | None = None) -> None:
        self._confidence = confidence

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        oldest = (group.oldest for group in waiting.values())
        job = min(oldest, key=lambda task: (task.exit < 0, task.arrived, task.id))
        return Turn(answer=(job,)) if self._stops(job, now) else Turn(run=(job,))

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        return not self._stops(task, now)

    def _stops(self, job: Task, now: float) -> bool:
        if job.exit < 0:
            return False
        confident = self._confidence is not None and job.confidence >= self._confidence
        return confident or now >= job.deadline or job.joules_left <= 0
