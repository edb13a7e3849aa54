"""Why jobs have no answer of the segment that ran."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from delen.core.dispatch import Key
from delen.core.failures import FailureCounter
from delen.core.variant import model_of
from delen.engine.health import EngineHealth
from delen.engine.job import Job
from delen.engine.observer import Observer
from delen.errors import BackendError

log = logging.getLogger("delen.engine")


class SegmentFailures:
    """Counts and reports what went wrong in segments."""

    def __init__(self, health: EngineHealth, observer: Observer) -> None:
        self._health = health
        self._observer = observer
        self._failures = FailureCounter("segment", log)

    def of(
        self, key: Key, jobs: Sequence[Job], errors: Mapping[int, Exception]
    ) -> Mapping[int, BackendError]:
        """What is wrong with each of the ``jobs`` that ran the segment of ``key``, by id: it is one
        for which the backend raised (``errors``), or its numbers are not finite.

        The segment has failed where it raised for all. What it does to some, an input can bring
        about, so that it says nothing of the segment.
        """
        if not errors and all(job.exit == key.segment for job in jobs):
            self._health.segment_worked(key)
            return {}
        if len(errors) == len(jobs):
            self._health.segment_failed(key)
        self._observer.segment_failed(model_of(key.model), key.segment)
        problems = {}
        for job in jobs:
            if (error := errors.get(job.id)) is not None:
                message = f"the engine failed in segment {key.segment}: {error}"
                problems[job.id] = BackendError(message)
                self._failures.failed(error, "segment %d of %s failed", key.segment, key.model)
            elif job.exit != key.segment:
                message = f"exit {key.segment} of {key.model} gave no finite numbers for the input"
                problems[job.id] = problem = BackendError(message)
                self._failures.failed(problem, "segment %d of %s", key.segment, key.model)
        return problems
