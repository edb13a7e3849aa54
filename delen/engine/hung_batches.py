"""Batches that do not return: their lanes go on without them."""

from __future__ import annotations

import logging
import time

from delen.core.variant import model_of
from delen.engine.health import EngineHealth, hung
from delen.engine.informing import InformingPolicy
from delen.engine.jobs import Jobs
from delen.residency.lease import NO_LEASE, Lease
from delen.scheduler.core import Scheduler
from delen.scheduler.lanes import Batch

log = logging.getLogger("delen.engine")


class HungBatches:
    """Used with the executor's lock held. ``left`` are the batches that hang, with the leases of
    their jobs: they need their segments still."""

    def __init__(
        self, scheduler: Scheduler, informing: InformingPolicy, jobs: Jobs, health: EngineHealth
    ) -> None:
        self.left: dict[Batch, list[Lease]] = {}
        self._scheduler = scheduler
        self._informing = informing
        self._jobs = jobs
        self._health = health

    def of(self, model: str) -> int:
        """How many are of ``model``."""
        return sum(model_of(batch.key.model) == model for batch in self.left)

    def leave(self, lane: int, batch: Batch, seen: float) -> bool:
        """Free ``lane``, and end the jobs of ``batch``, which was ``seen`` to hang, and those that
        wait for its model. False if it has returned since, or goes on with its next segment."""
        if not self._health.leave(lane, batch, seen):
            return False
        name, now = model_of(batch.key.model), time.monotonic()
        jobs = [job for task in batch.tasks if (job := self._jobs.get(task.id)) is not None]
        self.left[batch] = [job.lease for job in jobs]
        for job in jobs:
            job.lease = NO_LEASE
        with self._informing:
            self._scheduler.abandon(now, batch)
        for job in self._jobs.all():
            if job.model.name == name and job.id in self._scheduler:
                with self._informing:
                    self._scheduler.remove(now, job.id)
                jobs.append(job)
        for job in jobs:
            self._jobs.end_early(job, "failed", hung(name))
        log.error(
            "segment %d of %s hangs: %s is refused until it returns", *reversed(batch.key), name
        )
        return True

    def came_back(self, batch: Batch) -> bool:
        """Whether ``batch``, which has returned, is one that its lane had left."""
        leases = self.left.pop(batch, None)
        if leases is None:
            return False
        for lease in leases:
            lease.end()
        self._health.came_back(batch)
        log.warning("segment %d of %s has returned: it is served again", *reversed(batch.key))
        return True
