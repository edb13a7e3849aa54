"""Runs segments on the device, and reports what they took to energy control."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import isfinite

import numpy as np

from delen.core.work import Share, Work
from delen.engine.backends.base import Features, SegmentRun
from delen.engine.energy_admission import EnergyAdmission
from delen.engine.job import Job
from delen.engine.model import Model
from delen.profile.energy_account import Spent


class SegmentRunner:
    """The threads of all lanes use it. Each run takes ``threads`` of the processor."""

    def __init__(self, energy: EnergyAdmission, threads: int) -> None:
        self._energy = energy
        self._threads = threads

    def run(self, jobs: Sequence[Job], lane: int) -> Work:
        """Run ``jobs``, all of one model, through the segment that they wait for. Then each has the
        answer of its exit, unless its numbers are not finite."""
        model, segment, size = jobs[0].model, jobs[0].segment, len(jobs)
        shares = tuple(job.share for job in jobs)
        run, work = self._run(model, segment, [job.features for job in jobs], shares, lane)
        for job in jobs:
            job.started = min(job.started, work.began)
        each = None if work.joules is None else work.joules * model.costs.energy.factor(segment)
        features = run.features or [None] * size
        for row, job in enumerate(jobs):
            confidence, logits = float(run.confidence[row]), run.logits[row].copy()
            if not (isfinite(confidence) and np.isfinite(logits).all()):
                continue
            job.reached(
                segment,
                confidence,
                logits,
                None if each is None else each / size,
                features[row],
            )
        return work

    def run_sample(
        self, model: Model, segment: int, sample: Features, lane: int
    ) -> tuple[SegmentRun, Work]:
        """Run one ``sample``, which belongs to no job, through ``segment``."""
        return self._run(model, segment, [sample], (), lane)

    def _run(
        self,
        model: Model,
        segment: int,
        samples: list[Features],
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
        work = Work(model.name, segment, size, began, ended, joules, shares)
        self._energy.ran(work)
        return run, work
