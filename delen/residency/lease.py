"""What a request uses of its model's residency: predicted waits, and leases on segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from delen.errors import DelenError, ModelLoading


def still_loading(name: str, seconds: float) -> ModelLoading:
    """The refusal of a request for which ``name`` will be in memory too late; ``seconds`` are inf
    where there is no room for it now."""
    when = f"that takes another {seconds:.2g} s" if seconds < inf else "there is no room for it now"
    return ModelLoading(f"model {name!r} is not in memory yet: {when}", retry_after=seconds)


class Lease:
    """Keeps some segments of a model in memory until it ends, or the job has passed them.

    ``release`` is called once for each.
    """

    def __init__(self, release: Callable[[int], None], segments: range) -> None:
        self._release = release
        self._segments = segments

    def passed(self, segment: int) -> None:
        """Segments up to ``segment`` are needed no more."""
        if not self._segments:
            return
        passed = [leased for leased in self._segments if leased <= segment]
        self._segments = self._segments[len(passed) :]
        for leased in passed:
            self._release(leased)

    def end(self) -> None:
        if self._segments:
            self.passed(self._segments[-1])


NO_LEASE = Lease(lambda segment: None, range(0))


class ModelResidency:
    """One model's segments in memory: all of them, for as long as it is loaded. SlotResidency is
    that of a model under a cap. Safe to call from many threads."""

    def waits(self) -> Sequence[float] | None:
        """Seconds until each segment is predicted to be in memory if it is requested now: inf where
        it has no room or cannot be loaded, None where all segments are there."""
        return None

    def record_use(self, exit: int) -> None:
        """A request came that would best run to ``exit``."""

    def lease(self, exit: int, seconds: float) -> Lease:
        """Keep the segments up to ``exit`` in memory, or have them loaded. Waits while one of them
        is leaving, and raises ModelLoading after ``seconds``."""
        return NO_LEASE

    def lease_resident(self, segment: int) -> Lease | None:
        """Keep one segment that is in memory; None if it is not."""
        return NO_LEASE

    def failure(self, segment: int) -> DelenError | None:
        """Why ``segment`` is unavailable, None unless it failed to load or has no room."""
        return None


ALWAYS_RESIDENT = ModelResidency()
