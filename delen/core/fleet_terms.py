"""What a fleet asks of the plans of one tenant."""

from __future__ import annotations

from dataclasses import dataclass

from delen.core.variant import Size


@dataclass(frozen=True, slots=True)
class FleetTerms:
    """Plans go no deeper than exit ``deepest`` and run at no size above ``largest``, unless the
    request's own floor needs more; None is no ceiling. A plan's seconds on the device cost
    ``per_second`` each, its joules ``per_joule``, in accuracy."""

    deepest: int | None = None
    largest: Size | None = None
    per_second: float = 0.0
    per_joule: float = 0.0

    def allows(self, size: Size | None) -> bool:
        """Whether plans may run at ``size``; None is the only one of its model."""
        return self.largest is None or size is None or size <= self.largest


NO_TERMS = FleetTerms()
