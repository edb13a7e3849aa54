"""The outcome of each request of a run, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Fate(IntEnum):
    """How a request ended: with an answer; refused for its bounds; refused for the load, at its
    arrival or while it waited; or given up by its client."""

    ANSWERED = 0
    INFEASIBLE = 1
    OVERLOADED = 2
    GIVEN_UP = 3


_WHOLE = (
    "policy", "exits", "tenants", "decision_seconds", "policy_failures", "failures", "slowdown"
)  # fmt: skip
"""The fields that describe the whole run and are not columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """One row a request, in the order of the trace.

    ``tenant`` are indices of ``tenants``, ``fate`` values of Fate. Only answered rows have an
    ``exit`` (else -1) and a ``latency`` in seconds. ``correct`` is 1 for a right answer and 0 for a
    wrong one or none; between them if only its probability is known, NaN if that is unknown, too.
    ``energy`` (joules, NaN if unknown) and ``seconds`` of the device were spent on it, answered or
    not. ``missed_latency``, ``missed_accuracy`` and ``missed_energy``: an answer outside that
    bound. ``ended`` is when it was answered or refused. The policies failed ``policy_failures``
    times; ``failures`` are the first failures, in words. ``slowdown`` is how many times longer than
    profiled segments were believed to take, on average over batches; None if unknown.
    """

    policy: str
    exits: int
    tenants: tuple[str, ...]
    tenant: NDArray[np.int32]
    arrived: NDArray[np.float64]
    ended: NDArray[np.float64]
    fate: NDArray[np.int8]
    exit: NDArray[np.int8]
    latency: NDArray[np.float64]
    energy: NDArray[np.float64]
    seconds: NDArray[np.float64]
    correct: NDArray[np.float64]
    missed_latency: NDArray[np.bool_]
    missed_accuracy: NDArray[np.bool_]
    missed_energy: NDArray[np.bool_]
    decision_seconds: NDArray[np.float64]
    policy_failures: int
    failures: tuple[str, ...]
    slowdown: float | None = None

    def __len__(self) -> int:
        return len(self.fate)

    @property
    def answered(self) -> NDArray[np.bool_]:
        answered: NDArray[np.bool_] = self.fate == Fate.ANSWERED
        return answered

    @property
    def missed(self) -> NDArray[np.bool_]:
        """Answered outside a bound."""
        return self.missed_latency | self.missed_accuracy | self.missed_energy

    @property
    def effective(self) -> NDArray[np.float64]:
        """``correct`` if all bounds were kept, else 0; NaN if it is unknown."""
        effective: NDArray[np.float64] = self.correct * ~self.missed
        return effective

    def __getitem__(self, rows: NDArray[np.bool_]) -> Outcomes:
        """The requests whose ``rows`` (bool ``[requests]``) are true."""
        columns = {name: getattr(self, name)[rows] for name in self.__slots__ if name not in _WHOLE}
        return Outcomes(
            policy=self.policy,
            exits=self.exits,
            tenants=self.tenants,
            decision_seconds=self.decision_seconds,
            policy_failures=self.policy_failures,
            failures=self.failures,
            slowdown=self.slowdown,
            **columns,
        )
