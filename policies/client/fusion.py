"""Two places at once (Clownfish, SEC 2020): which windows go to a remote network, and its history.

A window is a local answer and how similar it is to the one before: the cosine ρ of their features.
Each ``period``-th window is sent, and one whose ρ rose by ``threshold``, for then a scene has
settled; the first window always is, and whatever was sent begins the period anew. An answer of the
remote network is absorbed whenever it comes: a late one rewrites the windows since.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.client.fusion_rules import Belief, FusionRule

Probabilities = NDArray[np.float64]

PERIOD = 5
THRESHOLD = 0.5
KEEP = 300
"""Windows that a remote answer may be late."""

_SUM = 1e-2
"""How far from 1 the sum of probabilities may be that were sent as 32 bits."""


@dataclass(frozen=True, slots=True)
class Fused:
    """What is believed of a window. ``remote`` is the newest window up to it whose remote answer is
    known, None if none is; ``trust`` (0 to 1) says how much of that still counts."""

    window: int
    probabilities: Probabilities
    similarity: float
    trust: float
    remote: int | None


@dataclass(slots=True)
class _Window:
    local: Probabilities
    similarity: float
    answer: Probabilities | None = None
    belief: Belief | None = None
    newest: int | None = None


class SendFilter:
    """Which windows are sent; ``due`` is asked before the local answer, ``settled`` after it.

    The first window is like none before it, so that the second's similarity is not a rise.
    """

    def __init__(self, period: int, threshold: float) -> None:
        self._period = period
        self._threshold = threshold
        self._left = period
        self._similarity: float | None = None
        self._has_begun = False

    def due(self) -> bool:
        """Whether a new window is sent because of the period."""
        self._left -= 1
        if self._left > 0:
            return False
        self._left = self._period
        return True

    def settled(self, similarity: float) -> bool:
        """Whether it is sent because of its similarity."""
        if self._has_begun:
            before, self._similarity = self._similarity, similarity
            if before is None or similarity - before < self._threshold:
                return False
        self._has_begun = True
        self._left = self._period
        return True


class Fusion:
    """The windows of one stream, the last ``keep`` of which can be rewritten."""

    def __init__(self, rule: FusionRule, keep: int = KEEP) -> None:
        self._rule = rule
        self._windows: deque[_Window] = deque(maxlen=keep)
        self._count = 0
        self._feature: NDArray[np.float64] | None = None

    def local(self, probabilities: Probabilities, feature: NDArray[np.float64]) -> Fused:
        """The local answer to the next window, and what is believed with it."""
        similarity = 0.0 if self._feature is None else cosine(self._feature, feature)
        self._feature = feature
        self._windows.append(_Window(probabilities, similarity))
        self._count += 1
        self._fuse(len(self._windows) - 1)
        return self.window(self._count - 1)

    def remote(self, window: int, probabilities: Probabilities) -> bool:
        """Absorb the remote answer to ``window``; False where that is too long ago."""
        first = window - self._count + len(self._windows)
        if not 0 <= first < len(self._windows):
            return False
        self._windows[first].answer = probabilities
        self._rule.learn(self._windows[first].local, probabilities)
        for place in range(first, len(self._windows)):
            self._fuse(place)
        return True

    def window(self, number: int) -> Fused:
        """What is believed of window ``number`` by now; IndexError where it is forgotten."""
        place = number - self._count + len(self._windows)
        if not 0 <= place < len(self._windows):
            raise IndexError(f"window {number} is not among the last {len(self._windows)}")
        found = self._windows[place]
        assert found.belief is not None
        return Fused(
            number,
            found.belief.probabilities,
            found.similarity,
            found.belief.trust,
            found.newest,
        )

    def _fuse(self, place: int) -> None:
        window = self._windows[place]
        before = self._windows[place - 1] if place else None
        window.belief = self._rule.fuse(
            None if before is None else before.belief,
            window.local,
            window.similarity,
            window.answer,
        )
        number = self._count - len(self._windows) + place
        if window.answer is not None:
            window.newest = number
        else:
            window.newest = None if before is None else before.newest


def cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The cosine of two vectors, 0 where one is none."""
    product = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / product if product > 0 else 0.0


def is_distribution(probabilities: Probabilities, classes: int) -> bool:
    """Whether they can be the probabilities of so many classes."""
    return bool(
        probabilities.shape == (classes,)
        and np.isfinite(probabilities).all()
        and (probabilities >= 0).all()
        and abs(float(probabilities.sum()) - 1.0) <= _SUM
    )
