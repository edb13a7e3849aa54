"""Trains ASET's learner on simulated sites; a training that was cut off goes on from its file.

An episode plays one site. The learner explores with a share of random actions that falls from 1 to
0.15 over the first two thirds of the episodes. An interval's reward is the mean effective accuracy
of the frames that were captured in it. Equal sites, episodes and seeds give equal weights.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from delen.errors import ConfigError
from delen.simulate.fleet.learner import Learner, Replay
from delen.simulate.fleet.run import play
from delen.simulate.fleet.site import Site
from policies.fleet.aset import Aset, Floats, QNetwork
from policies.fleet.static import STATIC

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


class Training:
    """``curve`` has the effective accuracy of each episode so far."""

    def __init__(self, sites: Sequence[Site], episodes: int, seed: int = 0) -> None:
        self.episodes = episodes
        self.curve: list[float] = []
        self._sites, self._seed = sites, seed
        self._digest = hashlib.sha256(pickle.dumps((sites, episodes, seed))).hexdigest()
        self._rng = np.random.default_rng(seed)
        self._learner = Learner(self._rng)
        self._replay = Replay()

    @property
    def network(self) -> QNetwork:
        """What has been learnt."""
        return QNetwork(self._learner.target)

    @property
    def is_done(self) -> bool:
        return len(self.curve) >= self.episodes

    def explored(self, episode: int) -> float:
        """The share of random actions in ``episode``."""
        share = episode / max(1, self.episodes - 1)
        return EXPLORE[0] + (EXPLORE[1] - EXPLORE[0]) * min(1.0, 1.5 * share)

    def step(self) -> float:
        """The next episode, and its effective accuracy."""
        episode = len(self.curve)
        explorer = _Explorer(self._learner.network, self.explored(episode), self._rng)
        site = self._sites[episode % len(self._sites)]
        log = play(site, explorer, episode + _SEEDS * self._seed)
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

    def save(self, file: Path) -> None:
        """Keep everything that the next episode depends on."""
        replay = self._replay
        written = file.with_suffix(".part.npz")
        state: dict[str, Any] = {
            "digest": self._digest,
            "curve": self.curve,
            "rng": json.dumps(self._rng.bit_generator.state),
            "states": np.array(replay.states),
            "actions": np.array(replay.actions, dtype=np.int64),
            "rewards": np.array(replay.rewards),
            "following": np.array(replay.following),
            **self._learner.state(),
        }
        np.savez(written, **state)
        written.replace(file)

    def restore(self, file: Path) -> None:
        """Go on from what ``save`` kept; ConfigError if that was of another training."""
        try:
            with np.load(file) as kept:
                state: dict[str, Any] = dict(kept)
        except (OSError, ValueError, BadZipFile) as error:
            raise ConfigError(f"{file} cannot be read; remove it to begin anew: {error}") from error
        if str(state.get("digest")) != self._digest:
            raise ConfigError(
                f"{file} is of a training with other sites, episodes or seed; remove it to begin "
                "anew"
            )
        self._learner.restore(state)
        self._rng.bit_generator.state = json.loads(str(state["rng"]))
        self.curve = state["curve"].tolist()
        self._replay = Replay(
            list(state["states"]),
            state["actions"].tolist(),
            state["rewards"].tolist(),
            list(state["following"]),
        )


def write_weights(network: QNetwork, file: Path, about: str) -> None:
    """A Python module with ``WEIGHTS``, for ``QNetwork.from_text``."""
    lines = "\n".join(f'    "{line}"' for line in textwrap.wrap(network.to_text(), 88))
    file.write_text(f'"""{about}"""\n\nWEIGHTS = (\n{lines}\n)\n', encoding="utf-8")
