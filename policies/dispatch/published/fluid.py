"""Fluid Batching (Kouris et al., ICCAD 2022): exit-aware preemption, batches that refill at exits.

When samples leave a batch at an exit, its places go to waiting ones: the batch is suspended while
samples that wait for earlier segments catch up, and goes on with them as one. It is preempted so
only while the suspended ones keep their deadlines: after the catching up of n samples and the
rest of the network on the batch of both.
"""

from __future__ import annotations

from collections.abc import Mapping

from delen.core.dispatch import Group, Key, ModelView, PolicyCapabilities, Ran, Task, Turn
from policies.dispatch.batching import first_in_rank, join


class FluidBatching:
    """Serves the model of the most urgent task: shallow groups while deeper ones can wait."""

    name = "fluid"
    capabilities = PolicyCapabilities(admits=False, guards=False)

    def choose(
        self, now: float, waiting: Mapping[Key, Group], models: Mapping[str, ModelView]
    ) -> Turn:
        urgent = first_in_rank(waiting.values())
        view = models[urgent.model]
        groups = [group for key, group in waiting.items() if key.model == urgent.model]
        groups.sort(key=lambda group: group.key.segment, reverse=True)
        chosen = groups[0]
        for shallower in groups[1:]:
            if not _can_wait(chosen, shallower, now, view):
                break
            chosen = shallower
        return Turn(run=join(chosen.first(1)[0], chosen, now, view))

    def ran(self, now: float, ran: Ran) -> None:
        """Nothing to learn."""

    def ended(self, now: float, task: Task) -> None:
        """Nothing to forget."""


def _can_wait(suspended: Group, newer: Group, now: float, view: ModelView) -> bool:
    """Whether there is room in the batch of ``suspended`` and time for ``newer`` to catch up."""
    room = view.max_batch - len(suspended)
    if room <= 0:
        return False
    arriving = min(len(newer), room)
    lead, segment = suspended.first(1)[0], suspended.key.segment
    catching_up = view.latency_upper(newer.key.segment, segment - 1, arriving)
    rest = view.latency_upper(segment, lead.last, len(suspended) + arriving)
    return now + catching_up + rest <= lead.deadline
