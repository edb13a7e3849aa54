"""What a scheduler's driver is to do."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from delen.core.dispatch import Task
from delen.scheduler.lanes import Batch


class DispatchDecision(NamedTuple):
    """What the driver is to do now.

    Run ``run`` on a free lane and report its end to ``Scheduler.ran``. Send the answers that
    ``answer`` (by the policy) and ``overdue`` (no better one is possible in time) have. Fail
    ``refuse``, which have none, and those ``overdue`` tasks that have none because their segment
    was not in memory in time. All but ``run`` have ended for the scheduler. Call ``next`` again at
    once if ``again``, else at ``wake`` (seconds, the caller's clock) if nothing happens until then.
    """

    run: Batch | None = None
    answer: tuple[Task, ...] = ()
    overdue: tuple[Task, ...] = ()
    refuse: tuple[Task, ...] = ()
    wake: float = inf
    again: bool = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self.run is None and not (self.answer or self.overdue or self.refuse)


NOTHING = DispatchDecision()
