"""What exit policies learn from: inputs that ran to the deepest exit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeGuard

from delen.bundle.calibration import Calibration
from policies.exit.bounds import ExitPolicy
from policies.plan.planner import Planner


class FullRun(NamedTuple):
    """An input that ran to the deepest useful exit, because its answer took that or as an audit.

    Of each exit up to that one: how confident it was, whether it ``agrees`` with the deepest, and
    the ``seconds`` that a run to it takes at the median. ``weight`` is how many answers it stands
    for: 1, or for an audit those that ended early since the last audit.
    """

    confidences: Sequence[float]
    agrees: Sequence[bool]
    seconds: Sequence[float]
    weight: float = 1.0


LEARNING = ("reports", "raised", "has_departed")
"""What a policy that has ``learn`` must have."""


class LearningPolicy(ExitPolicy, Protocol):
    """An exit policy that learns while one model is served. ``reports`` are sentences on what it
    has changed; whoever reads them empties the list. ``has_departed`` is true while inputs are not
    like the calibration data, so that nothing is promised of their answers; below ``raised`` no
    threshold stops a request then. Other threads read both at any time."""

    reports: list[str]
    raised: float

    @property
    def has_departed(self) -> bool: ...

    def learn(self, run: FullRun) -> None:
        """Called after every full run."""


class LearningSettings(ExitPolicy, Protocol):
    """What an entry point gives: an exit policy that makes one of its own for each model."""

    def for_model(self, table: Calibration, deepest: int) -> LearningPolicy:
        """For a network with the calibration ``table`` and the ``deepest`` useful exit."""


def own_policy(policy: ExitPolicy, planner: Planner) -> ExitPolicy:
    """What decides for the network of ``planner``: where ``policy`` makes them, one of its own."""
    if not _makes_own(policy):
        return policy
    return policy.for_model(planner.calibration, planner.useful.deepest)


def _makes_own(policy: ExitPolicy) -> TypeGuard[LearningSettings]:
    return callable(getattr(policy, "for_model", None))


def does_learn(policy: ExitPolicy) -> TypeGuard[LearningPolicy]:
    """Whether ``policy`` is to be shown full runs."""
    return callable(getattr(policy, "learn", None))
