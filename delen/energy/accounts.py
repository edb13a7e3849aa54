"""What a model's segments are said to cost before anything is measured, and what corrects it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from delen.core.result import EnergyKind
from delen.profile.energy_account import EnergyAccount, Spent, busy_seconds
from delen.profile.profile import Profile, SegmentCost
from power.sources.model import NAME as MODEL
from power.sources.model import SCOPE as PROCESSOR

PROFILE = "profile"
GPU = "gpu"
TRUSTED = 0.05
"""Of a profile that was taken with the sensor that measures now."""
UNTRUSTED = 1.0
"""Of the processor model, and of another sensor's profile: another scope, another factor."""


@dataclass(frozen=True, slots=True)
class _Snapshot:
    revision: int
    by_model: Mapping[str, tuple[float, ...]]


class Factors:
    """The latest correction factors of all models, by segment: published by the thread that
    attributes, read by all others without a lock."""

    def __init__(self) -> None:
        self._snapshot = _Snapshot(0, MappingProxyType({}))

    @property
    def revision(self) -> int:
        """Grows with every ``publish``."""
        return self._snapshot.revision

    def of(self, model: str, segment: int) -> float:
        """1 where nothing was published yet."""
        factors = self._snapshot.by_model.get(model)
        return 1.0 if factors is None or segment >= len(factors) else factors[segment]

    def publish(self, by_model: Mapping[str, tuple[float, ...]]) -> None:
        """Replace all factors at once."""
        self._snapshot = _Snapshot(self.revision + 1, MappingProxyType(dict(by_model)))


class ProfileAccount:
    """Joules as a sensor measured them when the profile of ``model`` was taken.

    A batch whose cost was not measured is unknown. ``scope`` is that of the sensor.
    """

    kind: EnergyKind = "estimated"
    source: str | None = PROFILE

    def __init__(self, model: str, scope: str, factors: Factors) -> None:
        self.scope: str | None = scope
        self._model = model
        self._factors = factors

    @property
    def revision(self) -> int:
        return self._factors.revision

    def predict(self, cost: SegmentCost, spent: Spent | None = None) -> float | None:
        return cost.energy

    def factor(self, segment: int) -> float:
        return self._factors.of(self._model, segment)


class ModelAccount:
    """Joules of a batch of ``model`` by time: every second that a core is busy, or the GPU where
    segments run there (``is_gpu``), costs ``watts_per_core`` joules, an idle one none."""

    kind: EnergyKind = "estimated"
    source: str | None = MODEL

    def __init__(self, model: str, watts_per_core: float, factors: Factors, is_gpu: bool) -> None:
        self.scope: str | None = GPU if is_gpu else PROCESSOR
        self._model = model
        self._watts_per_core = watts_per_core
        self._factors = factors
        self._is_gpu = is_gpu

    @property
    def revision(self) -> int:
        return self._factors.revision

    def predict(self, cost: SegmentCost, spent: Spent | None = None) -> float | None:
        return busy_seconds(cost, spent, self._is_gpu) * self._watts_per_core

    def factor(self, segment: int) -> float:
        return self._factors.of(self._model, segment)


@dataclass(frozen=True, slots=True)
class UnknownAccount:
    """The account of a machine with no source: every figure is unknown."""

    kind: EnergyKind = "unknown"
    source: str | None = None
    scope: str | None = None
    revision: int = 0

    def predict(self, cost: SegmentCost, spent: Spent | None = None) -> float | None:
        return None

    def factor(self, segment: int) -> float:
        return 1.0


class Accounts:
    """Opens the account of a model: by its profile where a sensor took it, else by the model of
    time; unknown where there is no ``source``."""

    def __init__(self, source: str | None, watts_per_core: float) -> None:
        self.factors = Factors()
        self._source = source
        self._watts_per_core = watts_per_core

    def open(self, profile: Profile) -> EnergyAccount:
        if self._source is None:
            return UnknownAccount()
        if profile.energy is not None:
            return ProfileAccount(profile.model, profile.energy.scope, self.factors)
        is_gpu = profile.device.is_gpu
        return ModelAccount(profile.model, self._watts_per_core, self.factors, is_gpu)

    def spread(self, profile: Profile) -> float:
        """How far the account of ``profile`` may be off against the source, as the relative
        standard deviation to begin with."""
        metering = profile.energy
        return TRUSTED if metering is not None and metering.source == self._source else UNTRUSTED
