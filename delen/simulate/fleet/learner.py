"""Deep Q-learning for ASET's network: Adam on squared errors, and a target that follows slowly."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from policies.fleet.aset import SHAPES, Floats, QNetwork

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
        weights = [
            rng.normal(0.0, (2 / shape[-1]) ** 0.5, shape) if len(shape) > 1 else np.zeros(shape)
            for shape in SHAPES
        ]
        self.network = QNetwork(weights)
        self.target = [each.copy() for each in weights]
        self._mean = [np.zeros(shape) for shape in SHAPES]
        self._square = [np.zeros(shape) for shape in SHAPES]
        self._steps = 0

    def update(self, replay: Replay, times: int) -> None:
        """Learn from ``times`` batches of ``replay``."""
        if not len(replay):
            return
        states, following = np.array(replay.states), np.array(replay.following)
        actions, rewards = np.array(replay.actions), np.array(replay.rewards)
        for _ in range(times):
            rows = self._rng.integers(len(replay), size=BATCH)
            later = QNetwork(self.target).layers(following[rows])[2].max(axis=1)
            self._fit(states[rows], actions[rows], rewards[rows] + DISCOUNT * later)

    def _fit(self, states: Floats, taken: Floats, wanted: Floats) -> None:
        first, second, values = self.network.layers(states)
        error = np.zeros_like(values)
        rows = np.arange(BATCH)
        error[rows, taken] = (values[rows, taken] - wanted) / BATCH
        w1, w2 = self.network.weights[2], self.network.weights[4]
        at_second = (error @ w2) * (second > 0)
        at_first = (at_second @ w1) * (first > 0)
        slopes = [
            at_first.T @ states,
            at_first.sum(axis=0),
            at_second.T @ first,
            at_second.sum(axis=0),
            error.T @ second,
            error.sum(axis=0),
        ]
        self._steps += 1
        for index, slope in enumerate(slopes):
            self._mean[index] += 0.1 * (slope - self._mean[index])
            self._square[index] += 0.001 * (slope**2 - self._square[index])
            mean = self._mean[index] / (1 - 0.9**self._steps)
            square = self._square[index] / (1 - 0.999**self._steps)
            self.network.weights[index] -= RATE * mean / (np.sqrt(square) + 1e-8)
            self.target[index] += FOLLOW * (self.network.weights[index] - self.target[index])

    def state(self) -> dict[str, Floats]:
        """Everything but the generator, by name."""
        parts = {
            f"{name}{index}": each
            for name, values in self._parts().items()
            for index, each in enumerate(values)
        }
        return {**parts, "steps": np.array(self._steps)}

    def restore(self, state: dict[str, Floats]) -> None:
        for name, values in self._parts().items():
            for index in range(len(SHAPES)):
                values[index] = state[f"{name}{index}"]
        self._steps = int(state["steps"])

    def _parts(self) -> dict[str, list[Floats]]:
        return {
            "network": self.network.weights,
            "target": self.target,
            "mean": self._mean,
            "square": self._square,
        }
