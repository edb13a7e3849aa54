"""The belief that this device now runs slower (or faster) than its profile says, or that its
batches take more (or fewer) joules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from statistics import NormalDist

_GAIN = 0.05
_KEPT = 1 - _GAIN
_LARGEST_STEP = 2.0
_HALF_LIFE = 2.0
_SPREAD_HALF_LIFE = 1.0


@dataclass(slots=True)
class Slowdown:
    """Mean and variance of measured time over the profile's median, over recent segments.

    One factor for the whole device, as the xi of ALERT (Wan et al., ATC 2020, section 3.3), kept
    by an exponentially weighted mean and variance instead of its Kalman filter: the gain is
    fixed, so the belief never stops listening. It is a value and never changed; not
    frozen, since one is made for every batch, in a third of the time.
    """

    mean: float = 1.0
    variance: float = 0.0

    def after(self, measured: float, predicted: float) -> Slowdown:
        """The belief after a segment of profiled median ``predicted`` took ``measured`` seconds.

        One segment counts for at most twice, and at least half, of what was believed: a process
        that was descheduled once says little of the device, one that stays slow soon counts.
        """
        mean = self.mean
        ratio, least, most = measured / predicted, mean / _LARGEST_STEP, mean * _LARGEST_STEP
        if ratio < least:
            ratio = least
        elif ratio > most:
            ratio = most
        surprise = ratio - mean
        return Slowdown(mean + _GAIN * surprise, _KEPT * (self.variance + _GAIN * surprise**2))

    def relaxed(self, elapsed: float) -> Slowdown:
        """The belief ``elapsed`` seconds later with nothing seen meanwhile.

        The mean goes half-way back to the profile every two seconds, the variance every one:
        a belief that refuses every request would else never be corrected, and it is single slow
        moments that make the variance.
        """
        kept = 0.5 ** (elapsed / _HALF_LIFE)
        kept_variance = 0.5 ** (elapsed / _SPREAD_HALF_LIFE)
        return Slowdown(1 + (self.mean - 1) * kept, self.variance * kept_variance)

    def high(self, level: float) -> float:
        """The factor that is not passed with probability ``level``, if the ratios are normal."""
        return self.mean + _z(level) * sqrt(self.variance)


@lru_cache(maxsize=16)
def _z(level: float) -> float:
    return NormalDist().inv_cdf(level)
