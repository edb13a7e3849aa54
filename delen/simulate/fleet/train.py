"""Trains ASET's learner on simulated sites; a training that was cut off goes on from its file.

An episode plays one site. The learner explores with a share of random actions that falls from 1 to
0.15 over the first two thirds of the episodes. An interval's reward is the mean effective accuracy
of the frames that were captured in it. Equal sites, episodes and seeds give equal weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from delen.simulate.fleet.learner import Learner, Replay
from delen.simulate.fleet.run import play
from delen.simulate.fleet.site import Site
from delen.simulate.learning.training import Training, falling, write_module
from policies.fleet.aset import Aset, QNetwork
from policies.fleet.static import STATIC
from policies.learnt import Floats

UPDATES = 200
EXPLORE = (1.0, 0.15)
_SEEDS = 1_000_000
"""Between the first episodes of two seeds."""


class _Explorer(Aset):
    """Takes a share of random actions, and notes states and actions."""

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


class AsetTraining(Training):
    """The merit of an episode is its effective accuracy."""

    policy = "aset"
    merit = "effective_accuracy"
    subject_words = "sites"

    def __init__(self, sites: Sequence[Site], episodes: int, seed: int = 0) -> None:
        super().__init__(sites, episodes, seed)
        self._sites = sites
        self._learner = Learner(self._rng)
        self._replay = Replay()

    @property
    def network(self) -> QNetwork:
        """What has been learnt."""
        return self._learner.target

    def explored(self, episode: int) -> float:
        return falling(EXPLORE, episode, self.episodes)

    def step(self) -> float:
        episode = len(self.curve)
        explorer = _Explorer(self._learner.network, self.explored(episode), self._rng)
        site = self._sites[episode % len(self._sites)]
        log = play(site, explorer, episode + _SEEDS * self.seed)
        intervals = np.floor(log.at / site.hub.period).astype(int)
        for step in range(len(explorer.states) - 1):
            inside = intervals == step
            if inside.any():
                self._replay.add(
                    explorer.states[step],
                    explorer.actions[step],
                    float(log.effective[inside].mean()),
                    explorer.states[step + 1],
                )
        self._learner.update(self._replay, UPDATES)
        self.curve.append(float(log.effective.mean()) if len(log) else 0.0)
        return self.curve[-1]

    def write(self, file: Path) -> None:
        about = f"The weights of ASET's learner: {self.episodes} episodes, seed {self.seed}."
        write_module(self.network.to_text(), file, about)

    def state(self) -> dict[str, Any]:
        replay = self._replay
        return {
            "states": np.array(replay.states),
            "actions": np.array(replay.actions, dtype=np.int64),
            "rewards": np.array(replay.rewards),
            "following": np.array(replay.following),
            **self._learner.state(),
        }

    def take(self, state: dict[str, Any]) -> None:
        self._learner.restore(state)
        self._replay = Replay(
            list(state["states"]),
            state["actions"].tolist(),
            state["rewards"].tolist(),
            list(state["following"]),
        )
