"""Discrete soft actor-critic (Christodoulou, arXiv 1910.07207): an actor and two critics.

The actor maximises reward and entropy; the weight of entropy is learnt so that the actor keeps a
given share of the greatest entropy that the possible actions allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from delen.simulate.learning.adam import FittedNetwork, follow, new_network
from policies.learnt import Floats, Network, Shapes

DISCOUNT = 0.6
"""A period's choice outlives it as long as the queue that it leaves."""

_BATCH = 128
_RATE = 1e-3
_FOLLOW = 0.02
_FOLLOW_KEPT = 0.002
_IMPOSSIBLE = -1e9


class Seen(NamedTuple):
    """What was seen: a row is a state, the actions possible in it, the one taken, its reward, and
    the state after it with its possible actions."""

    states: Floats
    possible: NDArray[np.bool_]
    actions: NDArray[np.int64]
    rewards: Floats
    following: Floats
    possible_then: NDArray[np.bool_]


class SoftActorCritic:
    """``actor`` gives the logarithms of actions' probabilities, up to a constant; ``kept`` is its
    mean over the last updates."""

    def __init__(self, shapes: Shapes, rng: np.random.Generator) -> None:
        self._rng = rng
        self._actor = FittedNetwork(new_network(shapes, rng), _RATE)
        self.kept = Network([each.copy() for each in self.actor.weights], shapes)
        self._critics = [FittedNetwork(new_network(shapes, rng), _RATE) for _ in range(2)]
        self._targets = [
            Network([each.copy() for each in critic.network.weights], shapes)
            for critic in self._critics
        ]
        self._log_weight = float(np.log(0.3))

    @property
    def actor(self) -> Network:
        return self._actor.network

    def update(self, seen: Seen, times: int, entropy: float) -> None:
        """Learn from ``times`` batches of ``seen``, and keep the share ``entropy`` of chance."""
        for _ in range(times):
            rows = self._rng.integers(len(seen.actions), size=_BATCH)
            self._fit(Seen._make(column[rows] for column in seen), entropy)

    def _fit(self, seen: Seen, entropy: float) -> None:
        weight, rows = np.exp(self._log_weight), np.arange(_BATCH)
        then, log_then = probabilities(self.actor.layers(seen.following)[2], seen.possible_then)
        least = np.minimum(*(each.layers(seen.following)[2] for each in self._targets))
        later = (then * (least - weight * log_then)).sum(axis=1)
        wanted = seen.rewards + DISCOUNT * later
        for critic in self._critics:
            layers = critic.network.layers(seen.states)
            errors = np.zeros_like(layers[2])
            errors[rows, seen.actions] = (layers[2][rows, seen.actions] - wanted) / _BATCH
            critic.fit(seen.states, layers, errors)
        values = np.minimum(*(each.network.layers(seen.states)[2] for each in self._critics))
        layers = self.actor.layers(seen.states)
        share, log_share = probabilities(layers[2], seen.possible)
        cost = weight * log_share - values
        slope = share * (cost - (share * cost).sum(axis=1, keepdims=True))
        self._actor.fit(seen.states, layers, slope / _BATCH)
        kept = -(share * log_share).sum(axis=1)
        aim = entropy * np.log(seen.possible.sum(axis=1))
        self._log_weight += _RATE * float((aim - kept).mean())
        self._log_weight = min(max(self._log_weight, -6.0), 1.0)
        follow(self.kept, self.actor, _FOLLOW_KEPT)
        for target, critic in zip(self._targets, self._critics, strict=True):
            follow(target, critic.network, _FOLLOW)

    def state(self) -> dict[str, Floats]:
        """Everything but the generator, by name."""
        state = self._actor.state("actor")
        for index, (critic, target) in enumerate(zip(self._critics, self._targets, strict=True)):
            state |= critic.state(f"critic{index}")
            state |= {f"target{index}_{n}": each for n, each in enumerate(target.weights)}
        state |= {f"kept{n}": each for n, each in enumerate(self.kept.weights)}
        return {**state, "log_weight": np.array(self._log_weight)}

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Go on from what ``state`` returned."""
        self._actor.restore("actor", state)
        for index, (critic, target) in enumerate(zip(self._critics, self._targets, strict=True)):
            critic.restore(f"critic{index}", state)
            target.weights = [state[f"target{index}_{n}"] for n in range(len(target.weights))]
        self.kept.weights = [state[f"kept{n}"] for n in range(len(self.kept.weights))]
        self._log_weight = float(state["log_weight"])


def probabilities(values: Floats, possible: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Of each action in each row, and their logarithms (0 for those that are not possible)."""
    masked = np.where(possible, values, _IMPOSSIBLE)
    masked = masked - masked.max(axis=1, keepdims=True)
    total = np.exp(masked).sum(axis=1, keepdims=True)
    logarithms = np.where(possible, masked - np.log(total), 0.0)
    return np.where(possible, np.exp(logarithms), 0.0), logarithms
