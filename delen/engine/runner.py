"""Runs segments on the device, and reports what they took to energy control."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.core.work import Share, Work
from delen.engine.backends.base import Features, SegmentRun
from delen.engine.energy_admission import EnergyAdmission
from delen.engine.job import Job
from delen.engine.model import Model
from delen.profile.energy_account import Spent

_FEW = 64
"""Classes."""


@dataclass(slots=True)
class BatchRun:
    """What became of a batch: the ``works`` that it took, and what was raised for the jobs in
    ``errors``, by id."""

    works: list[Work] = field(default_factory=list)
    errors: dict[int, Exception] = field(default_factory=dict)


class SegmentRunner:
    """The threads of all lanes use it. Each run takes ``threads`` of the processor."""

    def __init__(self, energy: EnergyAdmission, threads: int) -> None:
        self._energy = energy
        self._threads = threads

    def run(self, jobs: Sequence[Job], lane: int) -> BatchRun:
        """Run ``jobs``, all of one model, through the segment that they wait for. Then each has the
        answer of its exit, unless its numbers are not finite or it alone makes the network raise:
        a batch that raises is run again in two halves."""
        ran = BatchRun()
        self._run_batch(jobs, lane, ran)
        return ran

    def run_alone(self, job: Job, lane: int) -> Work:
        """As ``run``, of ``job`` alone; raises what the network raises."""
        model, segment = job.model, job.segment
        run, work = self._run(model, segment, (job.features,), (job.share,), lane)
        if work.began < job.started:
            job.started = work.began
        joules, logits, confidence = work.joules, run.logits[0], run.confidence.item(0)
        if isfinite(confidence) and _is_finite(logits):
            if joules is not None:
                joules *= model.costs.energy.factor(segment)
            features = run.features[0] if run.features else None
            job.reached(segment, confidence, logits.copy(), joules, features)
        return work

    def _run_batch(self, jobs: Sequence[Job], lane: int, ran: BatchRun) -> None:
        if len(jobs) == 1:
            try:
                ran.works.append(self.run_alone(jobs[0], lane))
            except Exception as error:
                ran.errors[jobs[0].id] = error
            return
        model, segment, size = jobs[0].model, jobs[0].segment, len(jobs)
        shares = tuple([job.share for job in jobs])
        try:
            run, work = self._run(model, segment, [job.features for job in jobs], shares, lane)
        except Exception:
            self._run_batch(jobs[: size // 2], lane, ran)
            self._run_batch(jobs[size // 2 :], lane, ran)
            return
        ran.works.append(work)
        each = None
        if work.joules is not None:
            each = work.joules * model.costs.energy.factor(segment) / size
        features = run.features or [None] * size
        for job, confidence, logits, row in zip(
            jobs, run.confidence.tolist(), run.logits, features, strict=True
        ):
            job.started = min(job.started, work.began)
            if isfinite(confidence) and _is_finite(logits):
                job.reached(segment, confidence, logits.copy(), each, row)

    def run_sample(
        self, model: Model, segment: int, sample: Features, lane: int
    ) -> tuple[SegmentRun, Work]:
        """Run one ``sample``, which belongs to no job, through ``segment``."""
        return self._run(model, segment, (sample,), (), lane)

    def _run(
        self,
        model: Model,
        segment: int,
        samples: Sequence[Features],
        shares: tuple[Share, ...],
        lane: int,
    ) -> tuple[SegmentRun, Work]:
        costs, size = model.costs, len(samples)
        cost = costs.cost(segment, size)
        began, processor = time.monotonic(), time.thread_time()
        run = model.network.run(segment, samples, lane)
        processor = (time.thread_time() - processor) * self._threads
        ended = time.monotonic()
        joules = costs.energy.predict(cost, Spent(ended - began, processor))
        work = Work(model.variant, segment, size, began, ended, joules, shares)
        self._energy.ran(work)
        return run, work


def _is_finite(numbers: NDArray[Any]) -> bool:
    """Whether all ``numbers`` are: their sum says so, unless it overflows. Of a few, numpy takes
    several times as long to begin."""
    if len(numbers) <= _FEW:
        return isfinite(sum(numbers.tolist()))
    return isfinite(numbers.sum()) or bool(np.isfinite(numbers).all())
