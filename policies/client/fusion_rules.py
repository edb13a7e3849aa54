"""How a remote answer and the local ones after it become one belief."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import exp, log
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Belief:
    """``probabilities`` are the answer; ``remote`` is what the remote answers said, ``trust`` how
    much of it counts at this window, from 0 to 1."""

    probabilities: Probabilities
    remote: Probabilities
    trust: float


class FusionRule(Protocol):
    """``fuse`` depends on its arguments and on what was learnt alone, so that windows can be fused
    anew."""

    name: str

    def learn(self, local: Probabilities, remote: Probabilities) -> None:
        """Both answered the same window."""

    def fuse(
        self,
        before: Belief | None,
        local: Probabilities,
        similarity: float,
        remote: Probabilities | None,
    ) -> Belief:
        """The belief in a window after ``before``; ``remote`` is its remote answer, if known."""


class Clownfish:
    """The published rule: exponential smoothing by similarity.

    ``y = α·y_before + (1 - α)·local``, or ``local/3 + 2·remote/3`` where the remote answer is
    known. α is the similarity, or ``alpha`` where that is given (0.5 is the paper's baseline). It
    is 0.5 once the remote answer counts for less than a half: its greatest probability times all α
    since.
    """

    name = "clownfish"

    LOCAL = 0.33
    FADED = 0.5

    def __init__(self, alpha: float | None = None) -> None:
        self._alpha = alpha

    def learn(self, local: Probabilities, remote: Probabilities) -> None:
        """Nothing is learnt."""

    def fuse(
        self,
        before: Belief | None,
        local: Probabilities,
        similarity: float,
        remote: Probabilities | None,
    ) -> Belief:
        if remote is not None:
            both = self.LOCAL * local + (1 - self.LOCAL) * remote
            return Belief(both, remote, float(both.max()))
        if before is None:
            return Belief(local, local, 0.0)
        alpha = similarity if self._alpha is None else self._alpha
        if before.trust < self.FADED:
            alpha = 0.5
        smoothed = alpha * before.probabilities + (1 - alpha) * local
        return Belief(smoothed, before.remote, before.trust * alpha)


class Trust:
    """Dělen's rule: a remote answer counts as long as the scene is likely the same.

    The chance that it still is falls with each window, ``trust = trust_before·(1 - 3·(1 - ρ))``,
    not below 0. Remote answers to one scene add up as evidence,
    ``q ∝ (trust·q_before + (1 - trust)/classes)·remote²``. The answer is
    ``w·q + (1 - w)·local`` with ``w = a·trust``, and ``a = σ(3·(logit R - logit L))`` compares how
    sure both are of the windows that both answered: the mean of their greatest probabilities over
    the last 30, which is their accuracy where they are calibrated. Without a remote answer the
    answer is the local one.
    """

    name = "trust"

    STEEPNESS = 3.0
    EVIDENCE = 2.0
    COMPARED = 30
    PRIOR = 0.8, 0.9
    """Mean confidences of local and remote before anything is known, which count as two windows."""

    _LEAST = 1e-6

    def __init__(self) -> None:
        self._confidences: deque[tuple[float, float]] = deque(maxlen=self.COMPARED)
        self._ability = self._compare()

    def learn(self, local: Probabilities, remote: Probabilities) -> None:
        self._confidences.append((float(local.max()), float(remote.max())))
        self._ability = self._compare()

    def fuse(
        self,
        before: Belief | None,
        local: Probabilities,
        similarity: float,
        remote: Probabilities | None,
    ) -> Belief:
        classes = len(local)
        said, trust = np.full(classes, 1 / classes), 0.0
        if before is not None:
            same = 1 - self.STEEPNESS * (1 - similarity)
            said, trust = before.remote, before.trust * min(1.0, max(0.0, same))
        if remote is not None:
            evidence = np.maximum(remote, self._LEAST) ** self.EVIDENCE
            said = (trust * said + (1 - trust) / classes) * evidence
            said, trust = said / said.sum(), 1.0
        weight = self._ability * trust
        return Belief(weight * said + (1 - weight) * local, said, trust)

    def _compare(self) -> float:
        pairs = [*self._confidences, self.PRIOR, self.PRIOR]
        local, remote = (sum(each) / len(pairs) for each in zip(*pairs, strict=True))
        return 1 / (1 + exp(-self.STEEPNESS * (_logit(remote) - _logit(local))))


def _logit(share: float) -> float:
    share = min(1 - 1e-6, max(1e-6, share))
    return log(share / (1 - share))
