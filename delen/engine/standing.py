"""What the daemon says of itself to a fleet."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from delen.bundle.manifest import Manifest
from delen.engine.energy_admission import ANYBODY, EnergyAdmission
from delen.engine.executor import Executor
from delen.engine.model import Model
from delen.errors import ModelNotFound
from delen.residency.loader import ModelLoader
from delen.residency.registry import Entry, ModelRegistry
from policies.fleet.api import OperatingPoint

Points: TypeAlias = tuple[OperatingPoint, ...]


_DIGITS = 7
"""Of latencies in seconds: those are a tenth of a microsecond."""


@dataclass(frozen=True, slots=True)
class ModelStanding:
    """A model that can answer: ``load`` seconds pass until it is in memory, 0 where it is. The same
    ``points`` are the same object."""

    name: str
    bundle: str
    points: Points
    load: float


@dataclass(frozen=True, slots=True)
class Standing:
    """The device now: seconds of ``backlog``, how many times longer than profiled it takes, the
    share of its lanes that ran lately, and the price of a joule in accuracy, which may be
    infinite."""

    models: tuple[ModelStanding, ...]
    backlog: float
    slowdown: float
    utilisation: float
    price_per_joule: float


@dataclass(frozen=True, slots=True)
class _Known:
    """A model's points, and what they were made of."""

    made_of: tuple[object, ...]
    manifest: Manifest
    bundle: str
    points: Points


class StandingSource:
    """Says how the device stands. Models that were unloaded are described as they were."""

    def __init__(
        self,
        executor: Executor,
        registry: ModelRegistry[Model],
        loader: ModelLoader[Model],
        energy: EnergyAdmission,
    ) -> None:
        self._executor = executor
        self._registry = registry
        self._loader = loader
        self._energy = energy
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def read(self) -> Standing:
        entries = self._registry.entries()
        load = self._executor.read_load([entry.model for _, entry in entries if entry.model])
        with self._lock:
            found = [self._describe(name, entry) for name, entry in entries]
        return Standing(
            models=tuple(model for model in found if model is not None),
            backlog=load.backlog,
            slowdown=load.slowdown,
            utilisation=load.utilisation,
            price_per_joule=self._energy.price(ANYBODY),
        )

    def _describe(self, name: str, entry: Entry[Model]) -> ModelStanding | None:
        """None where nothing is known of the model, or it cannot be loaded."""
        known = self._known.get(name)
        if known is None and entry.model is None:
            return None
        try:
            reach, seconds = self._loader.outlook(name)
        except ModelNotFound:  # its bundle has just gone
            return None
        if entry.model is not None:
            made_of = (reach, *(part for size in entry.model.sizes for part in _parts(size)))
            if known is None or known.made_of != made_of:
                bundle = entry.model.bundle
                known = _Known(made_of, bundle.manifest, bundle.digest, _points(entry.model, reach))
                self._known[name] = known
        if known is None or not known.points or not reach or known.manifest != entry.manifest:
            return None
        return ModelStanding(name, known.bundle, known.points, seconds)


def _parts(model: Model) -> tuple[object, ...]:
    """What the points of ``model`` at its size are made of."""
    return model.costs.profile, _energies(model)


def _energies(model: Model) -> tuple[float | None, ...]:
    """Joules of a sample up to each exit, to three digits: corrections of a thousandth, which come
    once a second, are not worth points made anew."""
    joules = model.costs.energies()
    return tuple(None if each is None else float(f"{each:.3g}") for each in joules)


def _points(model: Model, reach: int) -> Points:
    """The useful exits of the first ``reach`` at all sizes, smallest first."""
    return tuple(
        OperatingPoint(
            exit=exit,
            accuracy=size.planner.accuracies[exit],
            latencies=_latencies(size, exit),
            payload=float(math.prod(shape.shape) * np.dtype(shape.dtype).itemsize),
            size=size.bundle.size,
            energy=energies[exit],
        )
        for size in reversed(model.sizes)
        for energies in [_energies(size)]
        for shape in [size.bundle.manifest.input]
        for exit in size.planner.useful.exits
        if exit < reach
    )


def _latencies(model: Model, exit: int) -> tuple[float, ...]:
    """Seconds up to ``exit`` by batch size; a larger batch never takes less."""
    most = min(model.costs.profile.largest_batch, model.bundle.manifest.max_batch)
    found: list[float] = []
    for batch in range(1, most + 1):
        seconds = round(model.costs.undisturbed(exit, batch), _DIGITS)
        found.append(max([seconds, *found[-1:]]))
    return tuple(found)
