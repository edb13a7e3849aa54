"""How the joules of a segment are known: the protocol that energy accounts follow."""

from __future__ import annotations

from typing import Protocol

from delen.profile import SegmentCost
from delen.result import EnergyKind


class EnergyAccount(Protocol):
    """Joules of dynamic energy for work that is planned and for work that was done.

    ``kind`` is what a receipt says of figures from here, ``source`` and ``scope`` name where they
    come from and what they cover; both None where the kind is ``unknown``.
    """

    @property
    def kind(self) -> EnergyKind: ...
    @property
    def source(self) -> str | None: ...
    @property
    def scope(self) -> str | None: ...

    def planned(self, cost: SegmentCost) -> float | None:
        """Joules that a batch with this profiled ``cost`` will take; None if unknown."""

    def used(self, cost: SegmentCost, processor: float) -> float | None:
        """Joules that such a batch took, given its ``processor`` time in seconds."""
