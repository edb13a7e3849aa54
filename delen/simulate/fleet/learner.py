"""Deep Q-learning for ASET's network: Adam on squared errors, and a target that follows slowly."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from delen.simulate.learning.adam import FittedNetwork, follow, new_network
from policies.fleet.aset import SHAPES, QNetwork
from policies.learnt import Floats, Network

DISCOUNT = 0.7
"""An interval's choice hardly outlives the queues that it leaves."""

BATCH = 64
RATE = 1e-3
FOLLOW = 0.01


@dataclass(slots=True)
class Replay:
    """What was seen: a row is a state, what was done, what that paid, and the state after it."""

    states: list[Floats] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    following: list[Floats] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.actions)

    def add(self, state: Floats, action: int, reward: float, following: Floats) -> None:
        self.states.append(state)
        self.actions.append(action)
        self.rewards.append(reward)
        self.following.append(following)


class Learner:
    """``network`` explores, ``target`` is what is kept."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._fitted = FittedNetwork(new_network(SHAPES, rng), RATE)
        self._target = Network([each.copy() for each in self._fitted.network.weights], SHAPES)

    @property
    def network(self) -> QNetwork:
        return QNetwork(self._fitted.network.weights)

    @property
    def target(self) -> QNetwork:
        return QNetwork(self._target.weights)

    def update(self, replay: Replay, times: int) -> None:
        """Learn from ``times`` batches of ``replay``."""
        if not len(replay):
            return
        states, following = np.array(replay.states), np.array(replay.following)
        actions, rewards = np.array(replay.actions), np.array(replay.rewards)
        for _ in range(times):
            rows = self._rng.integers(len(replay), size=BATCH)
            later = self._target.layers(following[rows])[2].max(axis=1)
            self._fit(states[rows], actions[rows], rewards[rows] + DISCOUNT * later)

    def _fit(self, states: Floats, taken: Floats, wanted: Floats) -> None:
        layers = self._fitted.network.layers(states)
        errors, rows = np.zeros_like(layers[2]), np.arange(BATCH)
        errors[rows, taken] = (layers[2][rows, taken] - wanted) / BATCH
        self._fitted.fit(states, layers, errors)
        follow(self._target, self._fitted.network, FOLLOW)

    def state(self) -> dict[str, Floats]:
        """Everything but the generator, by name."""
        targets = {f"target{index}": each for index, each in enumerate(self._target.weights)}
        return {**self._fitted.state("network"), **targets}

    def restore(self, state: dict[str, Floats]) -> None:
        self._fitted.restore("network", state)
        self._target.weights = [state[f"target{index}"] for index in range(len(SHAPES))]
