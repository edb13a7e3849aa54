"""``python -m benchmarks.fleet.train_aset``: trains ASET's learner, and writes its weights.

Deep Q-learning in the simulator, on stretches of the cluster trace that the benchmark does not use,
over its three topologies in turn: replay of all transitions, Adam, a target network that follows
slowly (and is what is kept), and a share of random actions that falls.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

from benchmarks.fleet.aset import TOPOLOGIES, site
from delen.simulate.fleet.run import play
from policies.fleet import aset_weights
from policies.fleet.aset import SHAPES, Aset, Floats, QNetwork
from policies.fleet.static import STATIC

EPISODES = 270
SECONDS = 30.0
DISCOUNT = 0.7
"""An interval's choice hardly outlives the queues that it leaves."""

BATCH = 64
UPDATES = 200
RATE = 1e-3
FOLLOW = 0.01
EXPLORE = (1.0, 0.15)
ABOUT = "The weights of ASET's learner; ``python -m benchmarks.fleet.train_aset`` writes them."


class Explorer(Aset):
    """Takes a share of random actions, and notes states and actions with their times."""

    def __init__(self, network: QNetwork, explore: float, rng: np.random.Generator) -> None:
        super().__init__(network)
        self._explore, self._rng = explore, rng
        self.states: list[Floats] = []
        self.actions: list[int] = []

    def choose(self, state: Floats) -> int:
        if self._rng.random() < self._explore:
            action = int(self._rng.integers(len(STATIC)))
        else:
            action = super().choose(state)
        self.states.append(state)
        self.actions.append(action)
        return action


class Learner:
    """Q-learning by Adam on squared errors."""

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

    def update(self, states: Floats, actions: Floats, rewards: Floats, following: Floats) -> None:
        rows = self._rng.integers(len(states), size=BATCH)
        later = QNetwork(self.target).layers(following[rows])[2].max(axis=1)
        wanted = rewards[rows] + DISCOUNT * later
        first, second, values = self.network.layers(states[rows])
        error = np.zeros_like(values)
        taken = actions[rows].astype(int)
        error[np.arange(BATCH), taken] = values[np.arange(BATCH), taken] - wanted
        error /= BATCH
        w1, w2 = self.network.weights[2], self.network.weights[4]
        at_second = (error @ w2) * (second > 0)
        at_first = (at_second @ w1) * (first > 0)
        slopes = [
            at_first.T @ states[rows],
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


def train(episodes: int = EPISODES, seed: int = 0) -> QNetwork:
    rng = np.random.default_rng(seed)
    learner = Learner(rng)
    states: list[Floats] = []
    actions: list[int] = []
    rewards: list[float] = []
    following: list[Floats] = []
    topologies = list(TOPOLOGIES.values())
    for episode in range(episodes):
        share = episode / max(1, episodes - 1)
        explore = EXPLORE[0] + (EXPLORE[1] - EXPLORE[0]) * min(1.0, 1.5 * share)
        explorer = Explorer(learner.network, explore, rng)
        played = site(topologies[episode % len(topologies)], episode, SECONDS)
        log = play(played, explorer, episode)
        intervals = np.floor(log.at / played.hub.period).astype(int)
        effective = log.effective
        for step in range(len(explorer.states) - 1):
            inside = intervals == step
            if inside.any():
                states.append(explorer.states[step])
                actions.append(explorer.actions[step])
                rewards.append(float(effective[inside].mean()))
                following.append(explorer.states[step + 1])
        arrays = tuple(map(np.array, (states, actions, rewards, following)))
        for _ in range(UPDATES):
            learner.update(*arrays)
        if episode % 20 == 19:
            print(f"episode {episode + 1}: {effective.mean():.4f}", flush=True)
    return QNetwork(learner.target)


def main() -> None:
    text = train().to_text()
    lines = "\n".join(f'    "{line}"' for line in textwrap.wrap(text, 88))
    file = Path(aset_weights.__file__)
    file.write_text(f'"""{ABOUT}"""\n\nWEIGHTS = (\n{lines}\n)\n')
    print(f"written: {file}")


if __name__ == "__main__":
    main()
