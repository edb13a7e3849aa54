"""A test whether a promised risk still holds, valid after every outcome."""

from __future__ import annotations

ODDS = (1.1, 1.2, 1.5, 2.0, 3.0, 6.0, 12.0)
"""Alternatives to the promise: the odds of a wrong answer are this many times the promised ones."""

_HALF_WEIGHT = 100
"""Half of the weight is on changes that begin within this many outcomes."""


class DriftTest:
    """Evidence against "each outcome is wrong with at most its promised probability".

    Testing by betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
    betting", JRSS B 2023, section 4; for promised risks, Podkopaev and Ramdas, "Tracking the risk
    of a deployed model and detecting harmful distribution shifts", ICLR 2022, section 3): each
    outcome multiplies a stake by 1 + bet * (wrong - promised). While promises hold, the stake is
    a supermartingale, and by Ville's inequality it ever reaches 1 / delta with probability delta
    at most, however often one looks.

    The bets are those that grow the stake fastest where the odds of being wrong are r times the
    promised ones: bet = (r - 1) / (1 + promised * (r - 1)). The stake is spread over ODDS, and over
    the outcome at which the change begins, so that a long good time before does not hide it: the
    share that begins at outcome t is c / ((t + c - 1) (t + c)), c = 100.

    Outcomes of one group (frames of a track) depend on each other. Where a group has at most
    ``group`` of them, one after the other, every factor is raised to 1 / ``group``: a group's
    product is then at most the mean of its factors, which a group whose mean error is as promised
    does not let grow. As a group may be looked at before it ends, a stake counts as if the rest of
    the group were right.
    """

    def __init__(self, delta: float, group: int = 1) -> None:
        self.delta = delta
        self._power = 1 / group
        self.samples = 0
        self.errors = 0
        self.promised = 0.0
        self._stakes = [0.0] * len(ODDS)
        self._greatest = 1.0

    @property
    def evidence(self) -> float:
        """The greatest stake so far, as a multiple of the first one."""
        return self._greatest

    @property
    def holds(self) -> bool:
        """False once the promise is refuted at level ``delta``; it stays so."""
        return self._greatest < 1 / self.delta

    def add(self, wrong: bool, promised: float) -> None:
        """Add one outcome and the greatest error rate that was promised for it (0 to 1)."""
        self.samples += 1
        self.errors += wrong
        self.promised += promised
        if not self.holds:
            return
        first, after = self.samples - 1 + _HALF_WEIGHT, self.samples + _HALF_WEIGHT
        begins = _HALF_WEIGHT / (first * after)
        self._stakes = [
            (stake + begins)
            * ((odds if wrong else 1.0) / (1 + promised * (odds - 1))) ** self._power
            for stake, odds in zip(self._stakes, ODDS, strict=True)
        ]
        rest = 1 - self._power
        stake = sum(
            stake / (1 + promised * (odds - 1)) ** rest
            for stake, odds in zip(self._stakes, ODDS, strict=True)
        ) / len(ODDS)
        self._greatest = max(self._greatest, stake + _HALF_WEIGHT / after)
