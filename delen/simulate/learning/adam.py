"""Fits a small network by gradients of its outputs (Adam; Kingma and Ba, ICLR 2015)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from policies.learnt import Floats, Network, Shapes


def new_network(shapes: Shapes, rng: np.random.Generator) -> Network:
    weights = [
        rng.normal(0.0, (2 / shape[-1]) ** 0.5, shape) if len(shape) > 1 else np.zeros(shape)
        for shape in shapes
    ]
    return Network(weights, shapes)


class FittedNetwork:
    """``network`` in training, at a learning ``rate``."""

    def __init__(self, network: Network, rate: float) -> None:
        self.network = network
        self._rate = rate
        self._mean = [np.zeros(shape) for shape in network.shapes]
        self._square = [np.zeros(shape) for shape in network.shapes]
        self._steps = 0

    def fit(self, states: Floats, layers: tuple[Floats, Floats, Floats], errors: Floats) -> None:
        """One step against ``errors``, the slope of the loss by each output that ``layers`` gave
        for ``states``."""
        first, second, _ = layers
        w1, w2 = self.network.weights[2], self.network.weights[4]
        at_second = (errors @ w2) * (second > 0)
        at_first = (at_second @ w1) * (first > 0)
        slopes = [
            at_first.T @ states,
            at_first.sum(axis=0),
            at_second.T @ first,
            at_second.sum(axis=0),
            errors.T @ second,
            errors.sum(axis=0),
        ]
        self._steps += 1
        for index, slope in enumerate(slopes):
            self._mean[index] += 0.1 * (slope - self._mean[index])
            self._square[index] += 0.001 * (slope**2 - self._square[index])
            mean = self._mean[index] / (1 - 0.9**self._steps)
            square = self._square[index] / (1 - 0.999**self._steps)
            self.network.weights[index] -= self._rate * mean / (np.sqrt(square) + 1e-8)

    def state(self, name: str) -> dict[str, Floats]:
        """Everything of it, under names that begin with ``name``."""
        parts = {
            f"{name}_{part}{index}": each
            for part, values in self._parts().items()
            for index, each in enumerate(values)
        }
        return {**parts, f"{name}_steps": np.array(self._steps)}

    def restore(self, name: str, state: Mapping[str, Floats]) -> None:
        """Go on from what ``state`` returned."""
        for part, values in self._parts().items():
            for index in range(len(values)):
                values[index] = state[f"{name}_{part}{index}"]
        self._steps = int(state[f"{name}_steps"])

    def _parts(self) -> dict[str, list[Floats]]:
        return {"network": self.network.weights, "mean": self._mean, "square": self._square}


def follow(target: Network, network: Network, share: float) -> None:
    """Move ``target`` towards ``network`` by ``share`` of the difference."""
    for kept, new in zip(target.weights, network.weights, strict=True):
        kept += share * (new - kept)
