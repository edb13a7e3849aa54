"""Which segments cannot be loaded, so that no job waits for them."""

from __future__ import annotations

from math import inf

from delen.engine.job import Job
from delen.errors import DelenError


class UnavailableSegments:
    """Of each model the first segment that failed to load, and why."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[float, DelenError]] = {}

    def lose(self, model: str, segment: int, error: DelenError) -> None:
        """``segment`` cannot be loaded, and so none after it."""
        self._first[model] = segment, error

    def find(self, model: str, depth: int) -> None:
        """The first ``depth`` segments are there."""
        if model in self._first and depth > self._first[model][0]:
            del self._first[model]

    def forget(self, model: str) -> None:
        self._first.pop(model, None)

    def stops(self, job: Job) -> DelenError | None:
        """Why the next segment of ``job`` can never run, None if it can."""
        segment, error = self._first.get(job.model.name, (inf, None))
        return error if job.segment >= segment else None
