"""Which segments are in memory, which one is loaded next, and which one leaves for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from delen.residency.load_times import LoadTimes
from delen.residency.usage import Uses

SegmentState = Literal["resident", "loading", "leaving", "absent", "failed"]

_WORTH = 1.5
"""So many times the worth of what has to leave must a segment have that nobody waits for."""


@dataclass(frozen=True, slots=True)
class Load:
    """Load ``segment`` of ``model``; its memory is set aside already."""

    model: str
    segment: int


@dataclass(frozen=True, slots=True)
class Evict:
    """Free ``segment`` of ``model``, its last one in memory, unless it is needed again."""

    model: str
    segment: int


@dataclass(slots=True, eq=False)
class _Shelf:
    """The segments of one model: the first ``depth`` are in memory, and the next one while
    ``loading_since`` is set. Those from ``closed`` on leave as soon as no job needs them.

    ``references`` counts the jobs that need each. ``broken`` is the first that cannot be loaded.
    ``kept``: the first segment never leaves. ``called``: it is to be loaded, and then to stay until
    ``stays_until`` unless something else waits for its memory. ``asked_since`` orders those for
    which something waits.
    """

    name: str
    sizes: tuple[int, ...]
    densities: tuple[float, ...]
    references: list[int]
    uses: Uses = field(default_factory=Uses)
    depth: int = 0
    closed: int = 0
    loading_since: float | None = None
    broken: float = inf
    kept: bool = False
    called: bool = False
    stays_until: float = -inf
    asked_since: float = inf

    @property
    def open(self) -> int:
        """How many segments newcomers can count on."""
        return min(self.depth, self.closed)

    @property
    def taken(self) -> int:
        """Bytes in memory, with those that are set aside for what is being loaded."""
        return sum(self.sizes[: self.depth + (self.loading_since is not None)])

    def wanted(self) -> int:
        """How many segments something waits for."""
        needed = [k + 1 for k, count in enumerate(self.references) if count]
        return max(needed[-1] if needed else 0, 1 if self.kept or self.called else 0)

    def worth(self, segment: int, now: float) -> float:
        """What it brings to have ``segment`` in memory: accuracy a byte and second."""
        return self.densities[segment] / self.uses.gap(now)

    def least(self, now: float, is_asked: bool) -> int:
        """How many segments may not be taken away for one that is asked for, or is not."""
        return 1 if self.kept or (not is_asked and now < self.stays_until) else 0


class Residency:
    """Decides under a cap of ``cap`` bytes. Pure: time (seconds) is an argument.

    Segments of a model come in order and leave from the last one on, so that what is in memory of
    it can always answer. What jobs wait for is loaded first, in the order in which they asked;
    then what the last uses could have done with, as far as it is worth more than what has to
    leave. A segment's worth is the accuracy that it adds, a byte and a second until the model's
    next use (as GreedyDual-Size-Frequency weighs size and frequency; Cherkasova, 1998). The least
    worth leaves first. A segment that a job needs never does: it is closed to newcomers, and waits
    until the last job has passed it. What is in memory, or being loaded, never passes the cap.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.times = LoadTimes()
        self.loads = 0
        self.evictions = 0
        self.load_seconds = 0.0
        self._shelves: dict[str, _Shelf] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._shelves

    @property
    def taken(self) -> int:
        """Bytes of all segments in memory, and of the one that is being loaded."""
        return sum(shelf.taken for shelf in self._shelves.values())

    def add(self, name: str, sizes: Sequence[int]) -> None:
        """Take over the model ``name``, none of whose segments is in memory. ``sizes`` in bytes."""
        count = len(sizes)
        densities = _densities([1.0] + [0.0] * (count - 1), sizes)
        self._shelves[name] = _Shelf(name, tuple(sizes), densities, [0] * count)

    def forget(self, name: str) -> None:
        """All its segments were freed."""
        shelf = self._shelves.pop(name)
        self.evictions += shelf.depth

    def weigh(self, name: str, accuracies: Sequence[float]) -> None:
        """The segments' exits have these ``accuracies``."""
        shelf = self._shelves[name]
        shelf.densities = _densities(accuracies, shelf.sizes)

    def keep(self, name: str) -> None:
        """The first segment of ``name`` is to stay in memory from now on; what could not be loaded
        before may be tried again."""
        shelf = self._shelves[name]
        shelf.kept, shelf.broken = True, inf

    def use(self, name: str, now: float, depth: int) -> None:
        """It is used; for which its first ``depth`` segments would be best."""
        self._shelves[name].uses.add(now, depth)

    def call(self, name: str, until: float) -> None:
        """Load the first segment of ``name`` if it is not in memory, and leave it there until then
        unless something waits for its room."""
        shelf = self._shelves[name]
        shelf.called = shelf.depth == 0
        shelf.stays_until = max(shelf.stays_until, until)

    def hold(self, name: str, first: int, last: int) -> bool:
        """A job needs segments ``first`` to ``last``. False, and nothing is held, while one of
        them is about to leave."""
        shelf = self._shelves[name]
        if shelf.closed < shelf.depth and shelf.closed <= last:
            return False
        for segment in range(first, last + 1):
            shelf.references[segment] += 1
        return True

    def release(self, name: str, segment: int) -> None:
        """A job that needed ``segment`` needs it no more."""
        self._shelves[name].references[segment] -= 1

    def loaded(self, name: str, seconds: float) -> None:
        """What ``next`` said to load is in memory after ``seconds``."""
        shelf = self._shelves[name]
        self.times.add(name, shelf.depth, shelf.sizes[shelf.depth], seconds)
        self.loads += 1
        self.load_seconds += seconds
        shelf.loading_since = None
        shelf.called = False
        shelf.depth += 1
        shelf.closed = shelf.depth

    def empty(self, name: str) -> None:
        """All that was loaded of ``name``, or being loaded, is freed, and nobody needs it."""
        shelf = self._shelves[name]
        self._shelves[name] = _Shelf(
            name, shelf.sizes, shelf.densities, [0] * len(shelf.sizes), shelf.uses
        )

    def failed(self, name: str) -> None:
        """It could not be loaded. Nothing from that segment on is tried again."""
        shelf = self._shelves[name]
        shelf.loading_since = None
        shelf.broken = shelf.depth

    def evict(self, evict: Evict) -> bool:
        """Count the segment as freed; False if it must not be."""
        shelf = self._shelves[evict.model]
        if shelf.depth != evict.segment + 1 or shelf.references[evict.segment]:
            return False
        shelf.depth -= 1
        shelf.closed = shelf.depth
        self.evictions += 1
        return True

    def next(self, now: float) -> Load | Evict | None:
        """What to do now; None while there is nothing, or a load goes on."""
        shelves = self._shelves.values()
        if any(shelf.loading_since is not None for shelf in shelves):
            return None
        for shelf in shelves:
            shelf.closed = shelf.depth
            is_asked = shelf.wanted() > shelf.depth
            shelf.asked_since = min(shelf.asked_since, now) if is_asked else inf
        asked = [s for s in shelves if self._can_grow(s) and s.wanted() > s.depth]
        for shelf in sorted(asked, key=lambda shelf: shelf.asked_since):
            victims = self._victims(shelf, now, inf)
            if victims is not None:
                return self._make_room(shelf, victims, now)
        wished = [s for s in shelves if self._can_grow(s) and s.uses.depth > s.depth]
        for shelf in sorted(wished, key=lambda shelf: -shelf.worth(shelf.depth, now)):
            victims = self._victims(shelf, now, shelf.worth(shelf.depth, now) / _WORTH)
            if victims is not None:
                return self._make_room(shelf, victims, now)
        return None

    def waits(self, name: str, now: float) -> tuple[float, ...] | None:
        """Seconds until each segment is predicted to be in memory, if it is asked for now: inf
        where there is no room for it, None where all are there."""
        shelf = self._shelves[name]
        count = len(shelf.sizes)
        if shelf.open == count:
            return None
        reach = min(self.reach(name), shelf.broken)
        at, waits = self._seconds_ahead(shelf, now), [0.0] * shelf.open
        for segment in range(shelf.open, count):
            at += self._seconds_left(shelf, segment, now)
            waits.append(at if segment < reach else inf)
        return tuple(waits)

    def reach(self, name: str) -> int:
        """How many segments of ``name`` can be in memory at once, beside those that are kept."""
        shelf = self._shelves[name]
        left = self.cap - self.kept_beside(name)
        reach = 0
        for size in shelf.sizes:
            left -= size
            if left < 0:
                break
            reach += 1
        return reach

    def kept_beside(self, name: str) -> int:
        """Bytes of the first segments that are kept of other models than ``name``."""
        return sum(s.sizes[0] for s in self._shelves.values() if s.kept and s.name != name)

    def open(self, name: str) -> int:
        """How many segments of ``name`` are in memory and not about to leave it."""
        return self._shelves[name].open

    def depth(self, name: str) -> int:
        return self._shelves[name].depth

    def states(self, name: str) -> tuple[SegmentState, ...]:
        """Where each segment is."""
        shelf = self._shelves[name]
        return tuple(_state(shelf, segment) for segment in range(len(shelf.sizes)))

    def size(self, name: str, segment: int) -> int:
        """Bytes."""
        return self._shelves[name].sizes[segment]

    def references(self, name: str) -> tuple[int, ...]:
        """How many jobs need each segment."""
        return tuple(self._shelves[name].references)

    def _can_grow(self, shelf: _Shelf) -> bool:
        return shelf.depth < min(self.reach(shelf.name), shelf.broken)

    def _victims(self, shelf: _Shelf, now: float, limit: float) -> list[tuple[_Shelf, int]] | None:
        """The segments that leave for the next one of ``shelf``: those of least worth. With a
        ``limit``, only such that are worth less and that no job needs. None if they give too
        little room."""
        missing = shelf.sizes[shelf.depth] - (self.cap - self.taken)
        chosen: list[tuple[_Shelf, int]] = []
        depths = {s.name: s.depth for s in self._shelves.values() if s is not shelf}
        while missing > 0:
            tails = [
                other
                for other in self._others(shelf)
                if depths[other.name] > other.least(now, limit == inf)
                and (limit == inf or not other.references[depths[other.name] - 1])
            ]
            worths = [(s.worth(depths[s.name] - 1, now), s.name) for s in tails]
            if not worths or min(worths)[0] >= limit:
                return None
            victim = self._shelves[min(worths)[1]]
            depths[victim.name] -= 1
            chosen.append((victim, depths[victim.name]))
            missing -= victim.sizes[depths[victim.name]]
        return chosen

    def _others(self, shelf: _Shelf) -> Iterator[_Shelf]:
        return (other for other in self._shelves.values() if other is not shelf)

    def _make_room(
        self, shelf: _Shelf, victims: Iterable[tuple[_Shelf, int]], now: float
    ) -> Load | Evict | None:
        """The next step towards ``shelf`` having its next segment; the ``victims`` are closed."""
        step: Load | Evict | None = None
        waiting = False
        for victim, segment in victims:
            victim.closed = segment
            waiting = True
            last = victim.depth - 1
            if step is None and not victim.references[last]:
                step = Evict(victim.name, last)
        if waiting:
            return step
        shelf.loading_since = now
        return Load(shelf.name, shelf.depth)

    def _seconds_left(self, shelf: _Shelf, segment: int, now: float) -> float:
        """Of loading ``segment``, which is not in memory or about to leave it."""
        seconds = self.times.predict(shelf.name, segment, shelf.sizes[segment])
        if shelf.loading_since is not None and segment == shelf.depth:
            seconds = max(0.0, seconds - (now - shelf.loading_since))
        return seconds

    def _seconds_ahead(self, shelf: _Shelf, now: float) -> float:
        """Until the loads of other models end that go before those of ``shelf``."""
        seconds = 0.0
        for other in self._others(shelf):
            until = other.depth
            if other.loading_since is not None:
                until += 1
            if shelf.loading_since is None and other.asked_since <= shelf.asked_since:
                until = max(until, other.wanted() if other.asked_since < inf else 0)
            until = int(min(until, other.broken, self.reach(other.name)))
            seconds += sum(self._seconds_left(other, k, now) for k in range(other.depth, until))
        return seconds


def _state(shelf: _Shelf, segment: int) -> SegmentState:
    if segment < shelf.open:
        return "resident"
    if segment < shelf.depth:
        return "leaving"
    if segment >= shelf.broken:
        return "failed"
    return "loading" if segment == shelf.depth and shelf.loading_since is not None else "absent"


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
