"""What a plan depends on beside the bounds of its request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from delen.core.fleet_terms import NO_TERMS, FleetTerms


class Conditions(NamedTuple):
    """Seconds that a request has ``spent``, of others' work ``ahead`` of it, and of all work that
    is ``waiting``; whether floors are ``guaranteed``; the ``price`` of a joule in accuracy.
    ``waits`` are the seconds until each segment is in memory, inf for one that will not be; None
    where all are. ``terms`` are what the fleet asks."""

    spent: float = 0.0
    ahead: float = 0.0
    waiting: float = 0.0
    guaranteed: bool = True
    price: float = 0.0
    waits: Sequence[float] | None = None
    terms: FleetTerms = NO_TERMS

    @property
    def delay(self) -> float:
        """Seconds from the arrival of the request until it runs."""
        return self.spent + self.ahead

    @property
    def since(self) -> Sequence[float] | None:
        """``waits`` from the arrival of the request on."""
        if self.waits is None:
            return None
        return [self.spent + wait if wait else 0.0 for wait in self.waits]

    def idle(self) -> Conditions:
        """The same while nothing else waits."""
        return self._replace(ahead=0.0, waiting=0.0)


AT_REST = Conditions()
"""On an idle device."""
