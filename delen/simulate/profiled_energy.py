"""Joules of a simulated device: what its profile says, else busy time by watts."""

from __future__ import annotations

from dataclasses import dataclass

from delen.core.result import EnergyKind
from delen.profile.energy_account import Spent, busy_seconds
from delen.profile.profile import SegmentCost


@dataclass(frozen=True, slots=True)
class ProfiledEnergy:
    """An EnergyAccount by the profile; if that has no energy, ``watts_per_core`` for each busy
    second, and unknown if that is None."""

    watts_per_core: float | None
    is_gpu: bool = False
    kind: EnergyKind = "estimated"
    source: str | None = "profile"
    scope: str | None = None
    revision: int = 0

    def predict(self, cost: SegmentCost, spent: Spent | None = None) -> float | None:
        if cost.energy is not None or self.watts_per_core is None:
            return cost.energy
        return busy_seconds(cost, spent, self.is_gpu) * self.watts_per_core

    def factor(self, segment: int) -> float:
        """Always 1: nothing is measured that could correct the profile."""
        return 1.0
