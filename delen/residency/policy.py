"""Which segment is loaded next, which ones leave for it, and how long that is predicted to take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeAlias

from delen.residency.kept import KeptModels
from delen.residency.load_times import LoadTimes
from delen.residency.slot import ModelSlot

Slot: TypeAlias = ModelSlot[Any]
Victims: TypeAlias = list[tuple[Slot, int]]
"""Slots with the segments that leave, in this order."""

_ADVANTAGE = 1.5
"""So many times the value of what has to leave must a segment have that nobody waits for."""


@dataclass(frozen=True, slots=True)
class ResidencyPolicy:
    """Decides about ``slots`` under a cap of ``cap`` bytes, and changes nothing. Time (seconds) is
    an argument.

    What jobs wait for is loaded first, in the order in which they began to wait; then the models
    that are to be ``kept`` whole, the first segment of each before the rest of any; then what the
    last uses could have done with, as far as its value exceeds that of what has to leave. The value
    of a segment is the accuracy that it adds, a byte and a second until the model's next use
    (GreedyDual-Size-Frequency weighs size and frequency so; Cherkasova, 1998). The least value
    leaves first; kept models leave last, and only for what jobs wait for. A leased segment never
    leaves: it gets no new lease, and leaves after the last one. What is in memory, or being loaded,
    never exceeds the cap.
    """

    cap: float
    slots: Mapping[str, Slot]
    times: LoadTimes = field(default_factory=LoadTimes)
    kept: KeptModels = field(default_factory=KeptModels)

    @property
    def taken(self) -> int:
        """Bytes of all segments in memory, and of the one that is being loaded."""
        return sum(slot.taken for slot in self.slots.values())

    def reach(self, slot: Slot) -> int:
        """How many segments of ``slot`` can be in memory at once, beside those that are pinned."""
        left = self.cap - self.pinned_beside(slot)
        reach = 0
        for size in slot.sizes:
            left -= size
            if left < 0:
                break
            reach += 1
        return reach

    def wanted(self, slot: Slot) -> int:
        """How many segments of ``slot`` something waits for. Those without room do not count: what
        comes before them would be loaded in vain."""
        return slot.wanted(self.reach(slot))

    def has_no_room(self, slot: Slot, segment: int) -> bool:
        """Whether ``segment`` of ``slot`` is not in memory and cannot be, beside what is pinned."""
        in_memory = slot.depth + (slot.loading_since is not None)
        return segment >= max(in_memory, self.reach(slot))

    def pinned_beside(self, slot: Slot) -> int:
        """Bytes of the first segments that are pinned of models other than ``slot``'s."""
        return sum(other.sizes[0] for other in self._others(slot) if other.pinned)

    def choose(self, now: float) -> tuple[Slot, Victims] | None:
        """The slot that gets its next segment, once the victims have left; None if none should and
        can."""
        can_grow = [slot for slot in self.slots.values() if self._can_grow(slot)]
        waiting = [slot for slot in can_grow if self.wanted(slot) > slot.depth]
        for slot in sorted(waiting, key=lambda slot: slot.waiting_since):
            victims = self._victims(slot, now, inf, is_waited_for=True)
            if victims is not None:
                return slot, victims
        kept = [self.slots[name] for name in self.kept.names(now) if name in self.slots]
        for slot in sorted(kept, key=lambda slot: slot.depth > 0):
            if self._can_grow(slot) and (victims := self._victims(slot, now, inf)) is not None:
                return slot, victims
        useful = [slot for slot in can_grow if slot.uses.depth > slot.depth]
        for slot in sorted(useful, key=lambda slot: -slot.value(slot.depth, now)):
            victims = self._victims(slot, now, slot.value(slot.depth, now) / _ADVANTAGE)
            if victims is not None:
                return slot, victims
        return None

    def has_room_to_grow(self, slot: Slot, now: float) -> bool:
        """Whether the next segment of ``slot``, which is to be kept, can be loaded now."""
        return self._can_grow(slot) and self._victims(slot, now, inf) is not None

    def waits(self, slot: Slot, now: float) -> tuple[float, ...] | None:
        """Seconds until each segment is predicted to be in memory if it is requested now: inf where
        it has no room or cannot be loaded, None where all segments are there."""
        count = len(slot.sizes)
        if slot.available == count:
            return None
        reach = min(self.reach(slot), slot.unavailable)
        at, waits = self._seconds_ahead(slot, now), [0.0] * slot.available
        for segment in range(slot.available, count):
            at += self._seconds_left(slot, segment, now)
            waits.append(at if segment < reach else inf)
        return tuple(waits)

    def _can_grow(self, slot: Slot) -> bool:
        return slot.depth < min(self.reach(slot), slot.unavailable)

    def _victims(
        self, slot: Slot, now: float, limit: float, is_waited_for: bool = False
    ) -> Victims | None:
        """The segments that leave for the next one of ``slot``: those of least value, which has to
        be below the ``limit``. If nothing waits for it, only segments leave that have no lease and
        whose model is not kept. None if they give too little room."""
        kept = self.kept.names(now)
        missing = slot.sizes[slot.depth] - (self.cap - self.taken)
        chosen: Victims = []
        depths = {other.name: other.depth for other in self._others(slot)}
        while missing > 0:
            tails = [
                other
                for other in self._others(slot)
                if depths[other.name] > _least_depth(other, now, is_waited_for)
                and (
                    is_waited_for
                    or not (other.leases[depths[other.name] - 1] or other.name in kept)
                )
            ]
            values = [
                (other.name in kept, other.value(depths[other.name] - 1, now), other.name)
                for other in tails
            ]
            if not values or min(values)[1] >= limit:
                return None
            victim = self.slots[min(values)[2]]
            depths[victim.name] -= 1
            chosen.append((victim, depths[victim.name]))
            missing -= victim.sizes[depths[victim.name]]
        return chosen

    def _others(self, slot: Slot) -> Iterator[Slot]:
        return (other for other in self.slots.values() if other is not slot)

    def _seconds_left(self, slot: Slot, segment: int, now: float) -> float:
        """Of loading ``segment``, which is not in memory or about to leave it."""
        seconds = self.times.predict(slot.name, segment, slot.sizes[segment])
        if slot.loading_since is not None and segment == slot.depth:
            seconds = max(0.0, seconds - (now - slot.loading_since))
        return seconds

    def _seconds_ahead(self, slot: Slot, now: float) -> float:
        """Until the loads of other models end that go before those of ``slot``."""
        seconds = 0.0
        for other in self._others(slot):
            until = other.depth
            if other.loading_since is not None:
                until += 1
            if slot.loading_since is None and other.waiting_since <= slot.waiting_since:
                until = max(until, self.wanted(other) if other.waiting_since < inf else 0)
            until = int(min(until, other.unavailable, self.reach(other)))
            seconds += sum(self._seconds_left(other, k, now) for k in range(other.depth, until))
        return seconds


def _least_depth(slot: Slot, now: float, is_waited_for: bool) -> int:
    """How many segments of ``slot`` may not leave for one that is waited for, or is not."""
    return 1 if slot.pinned or (not is_waited_for and now < slot.stays_until) else 0
