"""Labelled data in the parts that a bundle needs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import InputSpec
from delen.core.guarantee import HeldOut
from delen.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Labelled:
    """``inputs`` ``[n, *shape]`` in a bundle's dtype, perhaps memory-mapped; ``labels`` int64
    ``[n]``; ``groups`` int32 ``[n]``, the number of each one's group, where samples of a group are
    not independent."""

    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    groups: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def group_count(self) -> int | None:
        """How many groups there are; None where every sample is independent of the others."""
        count = len(self) if self.groups is None else len(np.unique(self.groups))
        return None if count == len(self) else count

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """A 64-bit hash of each input, without its label. Reads all of the data once."""
        digests = (
            hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=8).digest()
            for row in self.inputs
        )
        return np.frombuffer(b"".join(digests), np.uint64)

    def take(self, indices: NDArray[np.int64]) -> Labelled:
        groups = None if self.groups is None else self.groups[indices]
        return Labelled(self.inputs[indices], self.labels[indices], groups)

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
    ``skipped`` names files that could not be read, ``names`` the samples of each part where they
    have names, and ``notes`` are sentences on what was read, for the builder and for the report.
    ``own_calibration`` is true where the data came with a calibration part, and ``held_out`` says
    whether the weights that are measured on it never saw it. Raises InvalidInput for labels outside
    the classes, or inputs that differ from ``input``.
    """

    name: str
    input: InputSpec
    classes: tuple[str, ...]
    training: Labelled
    validation: Labelled
    calibration: Labelled
    test: Labelled
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    own_calibration: bool = False
    held_out: HeldOut = "known"

    def sample_name(self, part: str, index: int) -> str:
        """The name of a sample for messages: its file or line, else its number in the part."""
        return self.names[part][index] if part in self.names else f"{part} sample {index}"

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
