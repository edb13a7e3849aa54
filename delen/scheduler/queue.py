"""Waiting jobs in order of priority, deadline and arrival, batched while no bound is at risk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from delen.costs import Costs


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """What the scheduler knows of a job: it waits for ``segment`` and will end by ``last``.

    ``deadline`` (s, on the caller's clock; inf if none) is when its answer has to leave;
    ``priority`` 1 goes first.
    """

    id: int
    model: str
    segment: int
    last: int
    priority: int
    deadline: float
    arrived: float

    @property
    def rank(self) -> tuple[int, float, float, int]:
        return (self.priority, self.deadline, self.arrived, self.id)


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs that run one segment of one model together."""

    model: str
    segment: int
    jobs: tuple[int, ...]


class Scheduler:
    """Holds the waiting jobs of one device and says which run next."""

    def __init__(self) -> None:
        self._waiting: dict[int, WaitingJob] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job: int) -> bool:
        return job in self._waiting

    def add(self, job: WaitingJob) -> None:
        """Take a job that waits for its next segment."""
        self._waiting[job.id] = job

    def remove(self, job: int) -> None:
        """Forget a waiting job: it was cancelled."""
        del self._waiting[job]

    def backlog(self, costs: Mapping[str, Costs], priority: int) -> float:
        """Seconds of predicted work that a new job of ``priority`` finds waiting before it."""
        return sum(
            costs[job.model].typical(job.segment, job.last, 1)
            for job in self._waiting.values()
            if job.priority <= priority
        )

    def next(
        self, now: float, costs: Mapping[str, Costs], max_batch: Mapping[str, int]
    ) -> Batch | None:
        """Take the next batch out of the queue, None if nothing waits.

        The job that ranks first leads. Others that wait for the same segment join in rank order
        as long as every job of the batch that could keep its deadline alone still can.
        """
        if not self._waiting:
            return None
        lead = min(self._waiting.values(), key=lambda job: job.rank)
        chosen = [lead]
        if len(self._waiting) > 1:
            mates = sorted(
                (j for j in self._waiting.values() if self._may_join(j, lead)),
                key=lambda job: job.rank,
            )
            chosen += self._joining(lead, mates, now, costs[lead.model], max_batch[lead.model])
        for job in chosen:
            del self._waiting[job.id]
        return Batch(lead.model, lead.segment, tuple(job.id for job in chosen))

    @staticmethod
    def _may_join(job: WaitingJob, lead: WaitingJob) -> bool:
        return job.model == lead.model and job.segment == lead.segment and job.id != lead.id

    @staticmethod
    def _joining(
        lead: WaitingJob, mates: list[WaitingJob], now: float, costs: Costs, limit: int
    ) -> list[WaitingJob]:
        def in_time(job: WaitingJob, batch: int) -> bool:
            finish = now + costs.latency(job.segment, job.last, batch) + costs.answering()
            return finish <= job.deadline

        at_risk = [lead] if lead.deadline < inf and in_time(lead, 1) else []
        joined: list[WaitingJob] = []
        for mate in mates[: limit - 1]:
            size = 2 + len(joined)
            guarded = [*at_risk, mate] if mate.deadline < inf and in_time(mate, 1) else at_risk
            if not all(in_time(job, size) for job in guarded):
                break
            at_risk = guarded
            joined.append(mate)
        return joined
