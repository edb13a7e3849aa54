"""Fluid Batching (Kouris et al., ICCAD 2022): exit-aware preemption, batches that refill at exits.

When samples leave a batch at an exit, waiting ones fill its positions: the batch is suspended while
samples that wait for earlier segments catch up, and goes on with them as one. That is done only
while the suspended samples keep their deadlines: n samples catch up, and then the rest of the
network runs on the batch of both.
"""

from __future__ import annotations

from collections.abc import Mapping

from delen.core.dispatch import Group, Key, ModelView, NoFeedback, PolicyCapabilities, Task, Turn
from policies.dispatch.published.shared import catch_up


class FluidBatching(NoFeedback):
    """Serves the model of the most urgent task: shallow groups while deeper ones can wait."""

    name = "fluid"
    capabilities = PolicyCapabilities(admits=False, guards=False)

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        return catch_up(now, waiting, models, _can_wait)

    def runs_alone(self, now: float, task: Task, models: Mapping[str, ModelView]) -> bool:
        return True


def _can_wait(now: float, suspended: Group, newer: Group, view: ModelView) -> bool:
    """Whether the batch of ``suspended`` has free positions, and time for ``newer`` to catch up."""
    free = view.max_batch - len(suspended)
    if free <= 0:
        return False
    arriving = min(len(newer), free)
    lead, segment = suspended.first(1)[0], suspended.key.segment
    catching_up = view.latency_upper(newer.key.segment, segment - 1, arriving)
    rest = view.latency_upper(segment, lead.last, len(suspended) + arriving)
    return now + catching_up + rest <= lead.deadline
