"""Which power source this machine is served by."""

from __future__ import annotations

from dataclasses import dataclass

from delen.energy import EnergyAccount
from delen.errors import ConfigError
from delen.profile import SegmentCost
from delen.result import EnergyKind
from power.model import ProcessorModel
from power.source import PowerSource

CHOICES = ("auto", "model", "none")


@dataclass(frozen=True, slots=True)
class UnknownAccount:
    """The account of a machine with no source: every figure is unknown."""

    kind: EnergyKind = "unknown"
    source: str | None = None
    scope: str | None = None

    def planned(self, cost: SegmentCost) -> float | None:
        return None

    def used(self, cost: SegmentCost, processor: float) -> float | None:
        return None


def choose_source(choice: str, watts_per_core: float) -> PowerSource | None:
    """The source for ``choice``: ``model``, ``none`` (None), or ``auto``, the best there is."""
    if choice not in CHOICES:
        raise ConfigError(f"power.source {choice!r} is none of {', '.join(CHOICES)}")
    return None if choice == "none" else ProcessorModel(watts_per_core)


def account_of(source: PowerSource | None) -> EnergyAccount:
    return UnknownAccount() if source is None else source.account
