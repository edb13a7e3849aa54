"""What learnt policies share: a small network, and the ranges of the states in its training."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Shapes = tuple[tuple[int, ...], ...]

_MARGIN = 0.1
"""A state may lie beyond what training met by this share of the range."""


class OutsideTraining(ValueError):
    """A state is far from all that a network was trained on: what it says of it means nothing."""


class Damaged(ValueError):
    """What is meant to be a learnt network is not one."""


def network_shapes(features: int, hidden: int, outputs: int) -> Shapes:
    """Those of matrix and bias of each layer in turn."""
    sizes = (features, hidden, hidden, outputs)
    return tuple(
        shape for before, after in pairwise(sizes) for shape in ((after, before), (after,))
    )


class Network:
    """Two hidden layers: ``W₂·relu(W₁·relu(W₀·s + b₀) + b₁) + b₂``; ``weights`` are matrix and
    bias of each layer in turn."""

    def __init__(self, weights: Sequence[Floats], shapes: Shapes) -> None:
        if tuple(each.shape for each in weights) != shapes:
            raise Damaged(f"the weights must have the shapes {shapes}")
        self.weights = list(weights)
        self.shapes = shapes

    def layers(self, states: Floats) -> tuple[Floats, Floats, Floats]:
        """Both hidden layers and all outputs, a row a state."""
        w0, b0, w1, b1, w2, b2 = self.weights
        first = np.maximum(states @ w0.T + b0, 0)
        second = np.maximum(first @ w1.T + b1, 0)
        return first, second, second @ w2.T + b2

    def values(self, state: Floats) -> Floats:
        values: Floats = self.layers(state[None])[2][0]
        return values


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """A ``network``, and the ``low`` and ``high`` of each feature of the states in its training."""

    network: Network
    low: Floats
    high: Floats

    def __post_init__(self) -> None:
        features = self.network.shapes[0][1]
        if self.low.shape != (features,) or self.high.shape != (features,):
            raise Damaged(f"low and high must have a value for each of {features} features")
        if not all(np.isfinite(each).all() for each in self._arrays):
            raise Damaged("weights and ranges must be finite")

    def values(self, state: Floats, names: Sequence[str]) -> Floats:
        """The outputs for ``state``, its features by ``names``; OutsideTraining if one of them is
        far from all that was met."""
        margin = _MARGIN * (self.high - self.low) + 1e-6
        inside = (state >= self.low - margin) & (state <= self.high + margin)
        if not inside.all():
            far = int(inside.argmin())
            raise OutsideTraining(
                f"{names[far]} is {state[far]:.3g}, and it was trained on "
                f"{self.low[far]:.3g} to {self.high[far]:.3g}: train it on this with "
                "`delen train-policy`"
            )
        return self.network.values(state)

    @property
    def _arrays(self) -> list[Floats]:
        return [*self.network.weights, self.low, self.high]

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """What a file holds, by name."""
        names = (*(f"weights{n}" for n in range(len(self.network.weights))), "low", "high")
        return {name: each.astype("<f4") for name, each in zip(names, self._arrays, strict=True)}

    def to_text(self) -> str:
        values = np.concatenate([each.ravel() for each in self._arrays])
        return b64encode(values.astype("<f4").tobytes()).decode()


def learnt_from_arrays(arrays: Mapping[str, NDArray[np.float32]], shapes: Shapes) -> Learnt:
    """From ``to_arrays``; Damaged says what is wrong."""
    try:
        weights = [arrays[f"weights{n}"].astype(np.float64) for n in range(len(shapes))]
        low, high = (arrays[name].astype(np.float64) for name in ("low", "high"))
    except (KeyError, ValueError, AttributeError) as error:
        raise Damaged(f"it lacks an array, or one is not of numbers: {error}") from error
    return Learnt(Network(weights, shapes), low, high)


def learnt_from_text(text: str, shapes: Shapes) -> Learnt:
    """From ``to_text``."""
    values = np.frombuffer(b64decode(text), "<f4").astype(np.float64)
    of_all = (*shapes, shapes[0][1:], shapes[0][1:])
    parts = np.split(values, np.cumsum([int(np.prod(shape)) for shape in of_all])[:-1])
    *weights, low, high = (part.reshape(shape) for part, shape in zip(parts, of_all, strict=True))
    return Learnt(Network(weights, shapes), low, high)
