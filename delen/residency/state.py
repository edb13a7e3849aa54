"""The state of all models in memory, and its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Generic

from delen.residency.interfaces import M
from delen.residency.load_times import LoadTimes
from delen.residency.policy import ResidencyPolicy
from delen.residency.slot import ModelSlot, SegmentState


@dataclass(frozen=True, slots=True)
class Load:
    """Load ``segment`` of ``model``; its memory is set aside already."""

    model: str
    segment: int


@dataclass(frozen=True, slots=True)
class Evict:
    """Free ``segment`` of ``model``, its last one in memory, unless it is leased again."""

    model: str
    segment: int


@dataclass(frozen=True, slots=True)
class SegmentStatus:
    """One segment: ``bytes`` that it takes in memory, and how many ``leases`` it has."""

    state: SegmentState
    bytes: int
    leases: int


@dataclass(frozen=True, slots=True)
class MemoryStatus:
    """The segments of all models under the cap, in bytes; times in seconds."""

    cap: float
    taken: int
    loads: int
    evictions: int
    load_seconds: float


class ResidencyState(Generic[M]):
    """Owns what is loaded, being loaded, leaving, leased and failed, under a cap of ``cap`` bytes.

    ``next_step`` says what to do; who does it calls ``loaded``, ``evict`` or the slot's ``fail``.
    Time (seconds) is an argument, and it knows no thread.
    """

    def __init__(self, cap: float = inf) -> None:
        self._slots: dict[str, ModelSlot[M]] = {}
        self.slots: Mapping[str, ModelSlot[M]] = MappingProxyType(self._slots)
        self.times = LoadTimes()
        self.policy = ResidencyPolicy(cap, self.slots, self.times)
        self._loads = 0
        self._evictions = 0
        self._load_seconds = 0.0

    def add(self, name: str, sizes: Sequence[int]) -> ModelSlot[M]:
        """A new slot for the model ``name``, none of whose segments is in memory by now. ``sizes``
        in bytes. Its old slot is out of use: leases on it keep nothing in memory."""
        old = self._slots.get(name)
        self._evictions += 0 if old is None else old.depth
        slot = self._slots[name] = ModelSlot[M](name, sizes)
        return slot

    def remove(self, name: str) -> None:
        """Forget the model ``name``, which is not in memory."""
        del self._slots[name]

    def owns(self, slot: ModelSlot[M]) -> bool:
        """Whether ``slot`` is still its model's."""
        return self._slots.get(slot.name) is slot

    def loaded(self, slot: ModelSlot[M], seconds: float) -> None:
        """The segment that was being loaded is in memory after ``seconds``."""
        self.times.add(slot.name, slot.depth, slot.sizes[slot.depth], seconds)
        self._loads += 1
        self._load_seconds += seconds
        slot.loading_since = None
        slot.requested = False
        slot.depth += 1
        slot.closed = slot.depth

    def evict(self, step: Evict) -> bool:
        """Count the segment as freed; False if it must not be."""
        slot = self._slots[step.model]
        if slot.depth != step.segment + 1 or slot.leases[step.segment]:
            return False
        slot.depth -= 1
        slot.closed = slot.depth
        self._evictions += 1
        return True

    def next_step(self, now: float) -> Load | Evict | None:
        """What to do now; None while there is nothing, or a load goes on."""
        slots = self._slots.values()
        if any(slot.loading_since is not None for slot in slots):
            return None
        for slot in slots:
            slot.closed = slot.depth
            waits = self.policy.wanted(slot) > slot.depth
            slot.waiting_since = min(slot.waiting_since, now) if waits else inf
        choice = self.policy.choose(now)
        if choice is None:
            return None
        slot, victims = choice
        if not victims:
            slot.loading_since = now
            return Load(slot.name, slot.depth)
        for victim, segment in victims:
            victim.closed = segment
        for victim, _ in victims:
            if not victim.leases[victim.depth - 1]:
                return Evict(victim.name, victim.depth - 1)
        return None

    def segments(self, slot: ModelSlot[M]) -> list[SegmentStatus]:
        return [
            SegmentStatus(slot.segment_state(segment), size, slot.leases[segment])
            for segment, size in enumerate(slot.sizes)
        ]

    def memory(self) -> MemoryStatus:
        policy = self.policy
        return MemoryStatus(
            policy.cap, policy.taken, self._loads, self._evictions, self._load_seconds
        )
