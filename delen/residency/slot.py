"""One model: what of it is in memory, who needs it, and why the rest is not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, Literal

from delen.errors import DelenError
from delen.residency.interfaces import M, OpenBundle
from delen.residency.use_history import UseHistory

SegmentState = Literal["resident", "loading", "leaving", "absent", "failed"]
ModelState = Literal["unloaded", "loading", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class Failure:
    """``segment`` could not be loaded, and so none after it."""

    segment: int
    error: DelenError


class ModelSlot(Generic[M]):
    """A model's state, of which there is no copy. Every other description derives from it.

    Segments are loaded in order and leave from the last one on: the first ``depth`` are in memory,
    and the next one is being loaded while ``loading_since`` is set. Segments from ``closed`` on get
    no new lease, and leave when their last lease ends; ``leases`` counts those of each segment.
    ``opened`` is set once the bundle is open, ``model`` once it can answer; ``needs_all`` while
    that takes all segments, which stay until then.

    ``pinned``: the first segment stays in memory. ``requested``: it is to be loaded, and then to
    stay until ``stays_until`` unless something else waits for its memory. ``waiting_since`` is when
    something began to wait for the next segment.
    """

    def __init__(self, name: str, sizes: Sequence[int]) -> None:
        self.name = name
        self.sizes = tuple(sizes)
        self.uses = UseHistory()
        self.clear()

    def clear(self) -> None:
        """Nothing of the model is in memory, and nothing needs it."""
        count = len(self.sizes)
        self.depth = 0
        self.closed = 0
        self.loading_since: float | None = None
        self.leases = [0] * count
        self.failure: Failure | None = None
        self.pinned = False
        self.requested = False
        self.stays_until = -inf
        self.waiting_since = inf
        self.needs_all = False
        self.opened: OpenBundle[M] | None = None
        self.model: M | None = None
        self.set_accuracies([1.0] + [0.0] * (count - 1))

    def set_accuracies(self, accuracies: Sequence[float]) -> None:
        """The exits of its segments have these expected ``accuracies``."""
        self._densities = _densities(accuracies, self.sizes)

    @property
    def state(self) -> ModelState:
        if self.failure is not None and self.failure.segment == 0:
            return "failed"
        if self.model is not None and self.depth > 0:
            return "ready"
        return "loading" if self.depth or self.loading_since is not None else "unloaded"

    @property
    def is_idle(self) -> bool:
        """Whether nothing of the model is open, and nobody waits for it."""
        is_wanted = self.requested or self.pinned
        return self.opened is None and self.loading_since is None and not is_wanted

    @property
    def available(self) -> int:
        """How many segments new leases can count on."""
        return min(self.depth, self.closed)

    @property
    def unavailable(self) -> float:
        """The first segment that cannot be loaded; inf where there is none."""
        return inf if self.failure is None else self.failure.segment

    @property
    def taken(self) -> int:
        """Bytes in memory, with those that are set aside for what is being loaded."""
        return sum(self.sizes[: self.depth + (self.loading_since is not None)])

    def wanted(self, reach: int) -> int:
        """How many segments something waits for, of the first ``reach``."""
        leased = [k + 1 for k, count in enumerate(self.leases[:reach]) if count]
        first = min(reach, 1) if self.pinned or self.requested else 0
        return max(leased[-1] if leased else 0, first)

    def segment_state(self, segment: int) -> SegmentState:
        if segment < self.available:
            return "resident"
        if segment < self.depth:
            return "leaving"
        if segment >= self.unavailable:
            return "failed"
        is_next = segment == self.depth and self.loading_since is not None
        return "loading" if is_next else "absent"

    def value(self, segment: int, now: float) -> float:
        """What it brings to have ``segment`` in memory: accuracy a byte and second."""
        return self._densities[segment] / self.uses.gap(now)

    def pin(self) -> None:
        """The first segment stays in memory from now on; what failed may be loaded again."""
        self.pinned, self.failure = True, None

    def request(self, until: float) -> None:
        """Load the first segment if it is not in memory, and leave it there until then unless
        something else waits for its memory."""
        self.requested = self.depth == 0
        self.stays_until = max(self.stays_until, until)

    def load_all(self) -> None:
        """Load all segments, and keep them there until ``complete``."""
        if not self.needs_all:
            self.needs_all = self.acquire(0, len(self.sizes) - 1)

    def complete(self, model: M) -> None:
        """``model`` can answer with the segments that are in memory."""
        self.model = model
        self.set_accuracies(model.accuracies)
        if self.needs_all:
            self.needs_all = False
            for segment in range(len(self.sizes)):
                self.release(segment)

    def fail(self, error: DelenError) -> None:
        """The next segment cannot be loaded. Segments that are there go on serving; of a model that
        is not complete, none may be there any more."""
        if self.model is None:
            self.clear()
        self.loading_since = None
        self.failure = Failure(self.depth, error)

    def acquire(self, first: int, last: int) -> bool:
        """Lease segments ``first`` to ``last``. False, and none is leased, while one of them is
        about to leave."""
        if self.closed < self.depth and self.closed <= last:
            return False
        for segment in range(first, last + 1):
            self.leases[segment] += 1
        return True

    def release(self, segment: int) -> None:
        """End one lease on ``segment``."""
        self.leases[segment] -= 1


def _densities(accuracies: Sequence[float], sizes: Sequence[int]) -> tuple[float, ...]:
    """Accuracy a byte of each segment: the best that it opens the way to, over all that it takes
    to get there."""
    densities: list[float] = []
    best = 0.0
    for first in range(len(sizes)):
        taken, density = 0, 0.0
        for last in range(first, len(sizes)):
            taken += sizes[last]
            density = max(density, (accuracies[last] - best) / taken)
        densities.append(density)
        best = max(best, accuracies[first])
    return tuple(densities)
