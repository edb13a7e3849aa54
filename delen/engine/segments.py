"""Runs segments on the device, and tells costs and energy accounts what they took."""

from __future__ import annotations

import time
from collections.abc import Sequence

from delen.energy import Share, Work
from delen.engine.audit import Audit
from delen.engine.backends.base import Features, SegmentRun
from delen.engine.desk import EnergyDesk
from delen.engine.job import Job
from delen.engine.model import Model


class Segments:
    """Used by the one thread that owns the device. ``threads`` are those that backends run on."""

    def __init__(self, desk: EnergyDesk, threads: int) -> None:
        self._desk = desk
        self._threads = threads

    def run(self, jobs: Sequence[Job]) -> Work:
        """Take ``jobs``, all of one model, through the segment that they wait for: then each has
        the answer of its exit."""
        model, segment, size = jobs[0].model, jobs[0].segment, len(jobs)
        shares = tuple(job.share for job in jobs)
        run, work = self._run(model, segment, [job.features for job in jobs], shares)
        for job in jobs:
            job.started = min(job.started, work.began)
        each = None if work.joules is None else work.joules * model.costs.energy.factor(segment)
        features = run.features or [None] * size
        for row, job in enumerate(jobs):
            job.reached(
                segment,
                float(run.confidence[row]),
                run.logits[row].copy(),
                None if each is None else each / size,
                features[row],
            )
        return work

    def run_audit(self, audit: Audit) -> tuple[Work, bool | None]:
        """Take ``audit`` through its next segment. After the last one, whether its exit agrees."""
        run, work = self._run(audit.model, audit.segment, [audit.features], ())
        if audit.segment == audit.last:
            return work, int(run.logits[0].argmax()) == audit.index
        audit.features, audit.segment = run.features[0], audit.segment + 1
        return work, None

    def _run(
        self, model: Model, segment: int, samples: list[Features], shares: tuple[Share, ...]
    ) -> tuple[SegmentRun, Work]:
        costs, size = model.costs, len(samples)
        profile, cost = costs.profile, costs.cost(segment, size)
        began, processor = time.monotonic(), time.thread_time()
        run = model.network.run(segment, samples)
        processor = (time.thread_time() - processor) * self._threads
        ended = time.monotonic()
        joules = costs.energy.predict(cost, processor)
        if costs.profile is profile:  # else this was still the power mode before
            costs.learn(segment, size, ended - began, joules)
        work = Work(model.name, segment, size, began, ended, joules, shares)
        self._desk.ran(work)
        return run, work
