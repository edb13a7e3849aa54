"""A training by episodes, that goes on from its file where it was cut off."""

from __future__ import annotations

import hashlib
import json
import pickle
import textwrap
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from delen.errors import ConfigError


class Training(ABC):
    """Of ``policy`` on a subject (``subject_words``: what a user calls it); ``curve`` has the
    ``merit`` of each episode so far. Equal subjects, episodes and seeds give equal weights."""

    policy: str
    merit: str
    subject_words: str

    def __init__(self, subject: object, episodes: int, seed: int) -> None:
        self.episodes = episodes
        self.seed = seed
        self.curve: list[float] = []
        self._digest = hashlib.sha256(pickle.dumps((subject, episodes, seed))).hexdigest()
        self._rng = np.random.default_rng(seed)

    @property
    def is_done(self) -> bool:
        return len(self.curve) >= self.episodes

    @abstractmethod
    def explored(self, episode: int) -> float:
        """The share of actions in ``episode`` that are drawn at random."""

    @abstractmethod
    def step(self) -> float:
        """The next episode, and its figure of merit."""

    @abstractmethod
    def write(self, file: Path) -> None:
        """What was learnt, as the policy reads it."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that the next episode depends on, beside ``curve`` and the generator."""

    @abstractmethod
    def take(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""

    def save(self, file: Path) -> None:
        """Keep everything that the next episode depends on."""
        written = file.with_suffix(".part.npz")
        kept = {
            "digest": self._digest,
            "curve": self.curve,
            "rng": json.dumps(self._rng.bit_generator.state),
            **self.state(),
        }
        np.savez(written, **kept)
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
                f"{file} is of another training (other {self.subject_words}, episodes or seed); "
                "remove it to begin anew"
            )
        self.take(state)
        self._rng.bit_generator.state = json.loads(str(state["rng"]))
        self.curve = state["curve"].tolist()


def falling(ends: tuple[float, float], episode: int, episodes: int) -> float:
    """From the first of ``ends`` to the second over two thirds of the ``episodes``."""
    share = episode / max(1, episodes - 1)
    return ends[0] + (ends[1] - ends[0]) * min(1.0, 1.5 * share)


def write_module(text: str, file: Path, about: str) -> None:
    """A Python module with ``text`` as ``WEIGHTS``."""
    lines = "\n".join(f'    "{line}"' for line in textwrap.wrap(text, 88))
    file.write_text(f'"""{about}"""\n\nWEIGHTS = (\n{lines}\n)\n', encoding="utf-8")
