"""Labelled data in the parts that a bundle needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import InputSpec
from delen.core.guarantee import HeldOut
from delen.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Labelled:
    """``inputs`` ``[n, *shape]`` in a bundle's dtype, perhaps memory-mapped; ``labels`` int64
    ``[n]``."""

    inputs: NDArray[Any]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Labelled:
        return Labelled(self.inputs[indices], self.labels[indices])

    def spread(self, count: int) -> Labelled:
        """At most ``count`` samples, evenly spread: samples often lie in the order of classes."""
        kept = min(count, len(self))
        return self.take(np.arange(kept) * len(self) // max(1, kept))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Four disjoint parts of labelled data.

    ``training`` fits weights; ``validation`` temperatures and the criterion; ``calibration`` the
    table behind every guarantee, which holds because nothing was fitted to it; ``test`` is used
    once, for the figures of the report. ``training`` alone may be empty, where no weight is fitted.
    ``skipped`` names files that could not be read. ``held_out`` says whether the weights that are
    measured on the calibration part never saw it.
    Raises InvalidInput for labels outside the classes, or inputs that differ from ``input``.
    """

    name: str
    input: InputSpec
    classes: tuple[str, ...]
    training: Labelled
    validation: Labelled
    calibration: Labelled
    test: Labelled
    skipped: tuple[str, ...] = ()
    held_out: HeldOut = "known"

    def __post_init__(self) -> None:
        for part in ("training", "validation", "calibration", "test"):
            data: Labelled = getattr(self, part)
            if not len(data) and part != "training":
                raise InvalidInput(f"{self.name} has no samples for {part}", "data")
            wanted = (self.input.shape, np.dtype(self.input.dtype))
            if (data.inputs.shape[1:], data.inputs.dtype) != wanted:
                raise InvalidInput(
                    f"{self.name}: the inputs for {part} are {data.inputs.dtype} "
                    f"{list(data.inputs.shape[1:])}, not {wanted[1]} {list(wanted[0])}",
                    "data",
                )
            if len(data) and not 0 <= data.labels.min() <= data.labels.max() < len(self.classes):
                raise InvalidInput(
                    f"{self.name}: the labels for {part} are from {data.labels.min()} to "
                    f"{data.labels.max()}; {len(self.classes)} classes are 0 to "
                    f"{len(self.classes) - 1}",
                    "data",
                )
