"""The protocol of a backend: it loads a bundle's segments and runs them on batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from delen.bundle.images import scale_down
from delen.bundle.manifest import Bundle

Features: TypeAlias = Any
"""One sample's features, in whatever form and place its backend keeps them. Before segment 0
they are the input itself, an array of the bundle's dtype and of its shape or that of a larger size,
which the network scales down."""


class SegmentRun(NamedTuple):
    """What a segment gave: float32 ``logits [batch, classes]`` and ``confidence [batch]``.

    ``features`` holds one entry a sample, empty after the last segment. The arrays are valid
    until the next run of the same network on the same lane.
    """

    features: Sequence[Features]
    logits: NDArray[np.float32]
    confidence: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Placement:
    """What a network runs on: ``runtime`` (onnxruntime or torch), the ``provider`` that it really
    got, and the ``threads`` of each of its runs."""

    runtime: str
    provider: str
    threads: int


class Network(Protocol):
    """A network whose segments are loaded and dropped one by one.

    Several threads may run it at once, each on another ``lane`` (0, 1, ...); what one lane gave may
    go on on another. No segment is dropped while it runs. ``blank`` is a sample of zeros for
    ``segment``, to run it once before it is needed.
    """

    @property
    def placement(self) -> Placement: ...
    @property
    def smaller(self) -> Sequence[Network]:
        """The same network at each smaller size of its bundle, whose segments are loaded and
        dropped with its own."""

    def load(self, segment: int) -> None:
        """Raises as ``Backend.load`` does."""

    def drop(self, segment: int) -> None: ...
    def blank(self, segment: int) -> Features: ...
    def run(self, segment: int, samples: Sequence[Features], lane: int = 0) -> SegmentRun: ...
    def take_in(self, features: NDArray[np.float32]) -> Features:
        """One sample's features, which another node gave, for the segment after them."""

    def take_out(self, features: Features) -> NDArray[np.float32]:
        """A copy in the host's memory of one sample's features, which a segment gave."""

    def free_lane(self, lane: int) -> None:
        """Free the memory of ``lane``, on which nothing runs, until the next run there."""


class Backend(Protocol):
    """Loads bundles. ``threads`` is how many each run of a network takes."""

    @property
    def threads(self) -> int: ...

    def open(self, bundle: Bundle) -> Network:
        """A network without any segment yet. Raises MissingExtra as ``load`` does."""

    def load(self, bundle: Bundle) -> Network:
        """A network with all its segments. Raises BackendError when a graph does not load or is
        not what the manifest says, and MissingExtra where what runs it is not installed."""


def blank_input(bundle: Bundle) -> NDArray[Any]:
    """An input of zeros."""
    return np.zeros(bundle.largest_shape, bundle.manifest.input.dtype)


def scaled_down(bundle: Bundle, inputs: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
    """``inputs`` as ones of the size of ``bundle``."""
    spec = bundle.manifest.input
    if bundle.scaled_from is None or spec.image is None:
        return inputs
    return [scale_down(each, spec.image, spec.shape) for each in inputs]


def fits(found: Sequence[Any], wanted: tuple[int, ...]) -> bool:
    """Whether the sizes that a graph states after the batch are those wanted; one that it leaves
    open fits."""
    return len(found) == 1 + len(wanted) and all(
        size == right
        for size, right in zip(found[1:], wanted, strict=True)
        if isinstance(size, int)
    )
