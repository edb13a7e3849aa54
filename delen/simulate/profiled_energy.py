"""Joules of a simulated device: what its profile says, else processor time by watts."""

from __future__ import annotations

from dataclasses import dataclass

from delen.core.result import EnergyKind
from delen.profile.profile import SegmentCost


@dataclass(frozen=True, slots=True)
class ProfiledEnergy:
    """An EnergyAccount by the profile; if that has no energy, ``watts_per_core`` for each processor
    second, and unknown if that is None."""

    watts_per_core: float | None
    kind: EnergyKind = "estimated"
    source: str | None = "profile"
    scope: str | None = None
    revision: int = 0

    def predict(self, cost: SegmentCost, processor: float | None = None) -> float | None:
        if cost.energy is not None or self.watts_per_core is None:
            return cost.energy
        return (cost.processor if processor is None else processor) * self.watts_per_core

    def factor(self, segment: int) -> float:
        """Always 1: nothing is measured that could correct the profile."""
        return 1.0
