"""Dělen (Liang et al., IoTDI 2023) as an operator may set it at best: its conditions look ahead.

As in the published form (``delen.py``) a job runs alone, segment after segment, in order of
arrival. It deviates in three points. Caps are looked at before a segment, not after it: a job is
answered if the next segment may pass one, and refused if that is its first. Its condition on
confidence is the threshold of its plan, which is certified for its floor. It goes no deeper than
its plan.
"""

from __future__ import annotations

from collections.abc import Mapping

from delen.core.dispatch import (
    Group,
    Key,
    ModelView,
    NoFeedback,
    PolicyCapabilities,
    Task,
    Turn,
)


class PredictiveConditions(NoFeedback):
    """Keeps nothing: plans have the conditions on confidence, and all jobs are looked at anew."""

    name = "delen_predictive"
    capabilities = PolicyCapabilities(admits=False, guards=False)

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        oldest = (group.oldest for group in waiting.values())
        job = min(oldest, key=lambda task: (task.exit < 0, task.arrived, task.id))
        if not self._breaks_cap(job, now, models[job.model]):
            return Turn(run=(job,))
        return Turn(refuse=(job,)) if job.exit < 0 else Turn(answer=(job,))

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        return not self._breaks_cap(task, now, models[task.model])

    @staticmethod
    def _breaks_cap(job: Task, now: float, view: ModelView) -> bool:
        """Whether its next segment may pass a cap."""
        segment = job.segment
        joules = view.joules(segment, segment, 1) or 0.0
        late = now + view.latency_upper(segment, segment, 1) > job.deadline
        return late or joules > job.joules_left
