"""The greatest number of equal cameras that a device keeps up with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from delen.simulate.mean_interval import Mean


class Trial(NamedTuple):
    """What comes of so many ``cameras`` together, over seeds: the share of requests refused or
    answered outside their bounds, the effective accuracy, and seconds at the 99 % quantile (None
    where nothing was answered)."""

    cameras: int
    violations: Mean
    effective: Mean
    p99: Mean | None


class Capacity(NamedTuple):
    """``cameras`` keep within the limit on violations, and one more does not. ``low`` and ``high``
    are the greatest numbers whose intervals lie within it, and reach into it. ``trials`` ascend."""

    cameras: int
    low: int
    high: int
    trials: tuple[Trial, ...]

    def at(self, cameras: int) -> Trial | None:
        """The trial with so many; None where there was none."""
        return next((trial for trial in self.trials if trial.cameras == cameras), None)


def find_capacity(play: Callable[[int], Trial], limit: float, most: int) -> Capacity:
    """Try numbers of cameras up to ``most`` by doubling and bisection; ``play`` tries one.

    ``cameras`` is ``most`` where even so many keep within ``limit``.
    """
    trials: dict[int, Trial] = {}

    def violations(cameras: int) -> Mean:
        if cameras not in trials:
            trials[cameras] = play(cameras)
        return trials[cameras].violations

    def greatest(keeps: Callable[[Mean], bool], most: int) -> int:
        return _greatest(lambda cameras: keeps(violations(cameras)), tuple(trials), most)

    best = greatest(lambda share: share.mean <= limit, most)
    low = greatest(lambda share: share.high <= limit, best)
    high = greatest(lambda share: share.low <= limit, most)
    return Capacity(best, low, high, tuple(trials[count] for count in sorted(trials)))


def _greatest(keeps: Callable[[int], bool], known: Sequence[int], most: int) -> int:
    """A number up to ``most`` for which it ``keeps``, while it does not for the next one; 0 where
    it does not for 1. Those ``known`` cost nothing."""
    failed = min((number for number in known if not keeps(number)), default=most + 1)
    failed = min(failed, most + 1)
    kept = max((number for number in known if number < failed), default=0)
    tried = 2 * kept or 1
    while tried < failed:
        if keeps(tried):
            kept, tried = tried, 2 * tried
        else:
            failed = tried
    while failed - kept > 1:
        middle = (kept + failed) // 2
        if keeps(middle):
            kept = middle
        else:
            failed = middle
    return kept
