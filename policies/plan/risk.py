"""Bounds on a risk (an expected loss, an error rate) from independent samples of it.

Each exists as a p-value of "the risk is above ``rate``", as the most errors at which that is
rejected, and, inverted, as an upper confidence bound. The exact ones are for losses of 0 and 1;
those by Hoeffding and Bentkus, and by betting, hold for every loss from 0 to 1. Betting adapts to
the spread of the losses, and so is by far the closest for means of groups.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import ceil, e, exp, inf, log

import numpy as np
from numpy.typing import NDArray

_HALVINGS = 40
_BETTING_HALVINGS = 20  # every one goes over all losses
_ROUNDING = 1e-9
"""How much sums of losses may exceed the whole number that they represent."""


def binomial_p(errors: int, samples: int, rate: float) -> float:
    """P(Binomial(``samples``, ``rate``) <= ``errors``)."""
    return 1.0 if errors >= samples else float(_binomial_cdf(samples, rate, errors)[errors])


def hoeffding_bentkus_p(mean: float, samples: int, rate: float) -> float:
    """The p-value of "the risk is above ``rate``" for a ``mean`` of losses from 0 to 1.

    Bates et al., "Distribution-Free, Risk-Controlling Prediction Sets", J. ACM 68 (2021), section
    3.1; Angelopoulos et al., "Learn then Test", 2110.01052, section 3: the smaller of Hoeffding's
    tail, exp(-n h(mean, rate)) with the relative entropy h, and Bentkus's, e times the binomial
    tail at the mean rounded up.
    """
    hoeffding = exp(-samples * _relative_entropy(min(mean, rate), rate))
    bentkus = e * binomial_p(ceil(samples * mean - _ROUNDING), samples, rate)
    return min(hoeffding, bentkus, 1.0)


@lru_cache(maxsize=4096)
def most_errors(samples: int, rate: float, delta: float) -> int:
    """The most errors among ``samples`` whose binomial tail at ``rate`` is at most ``delta``.

    That is, the largest k with ``binomial_p(k, samples, rate)`` <= delta; -1 if there is none.
    """
    tail = _binomial_cdf(samples, rate, samples)
    return int(np.searchsorted(tail, delta, side="right")) - 1


@lru_cache(maxsize=4096)
def most_errors_bounded(samples: int, rate: float, delta: float) -> int:
    """As ``most_errors``, by ``hoeffding_bentkus_p``: what holds for any bounded loss."""
    low, high = -1, samples
    while high - low > 1:
        middle = (low + high) // 2
        if hoeffding_bentkus_p(middle / samples, samples, rate) <= delta:
            low = middle
        else:
            high = middle
    return low


def upper_bound(errors: int, samples: int, delta: float) -> float:
    """The exact upper confidence bound of an error rate (Clopper and Pearson, 1934), which is below
    the true rate with probability at most ``delta``."""
    return _invert(lambda rate: binomial_p(errors, samples, rate), errors / samples, delta)


def upper_bound_bounded(mean: float, samples: int, delta: float) -> float:
    """As ``upper_bound``, by Hoeffding and Bentkus for a ``mean`` of losses from 0 to 1."""
    return _invert(lambda rate: hoeffding_bentkus_p(mean, samples, rate), mean, delta)


def betting_bound(
    losses: NDArray[np.float64], delta: float, shares: NDArray[np.float64] | None = None
) -> float:
    """The upper confidence bound of the mean of independent ``losses`` from 0 to 1, by betting.

    Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86
    (2024), section 4; with these bets in Bates et al., "Distribution-Free, Risk-Controlling
    Prediction Sets", J. ACM 68 (2021), section 3.1. A stake of 1 is multiplied by
    1 + bet * (rate - loss) with each loss. Where the mean is at least ``rate`` it is a
    supermartingale, which by Ville's inequality ever reaches 1 / delta with probability ``delta``
    at most. Bets depend on the losses before, so the losses must come in an order that does not
    depend on them.

    With ``shares``, none below its loss, the bound is of mean loss / mean share: losses of a part
    of each group's samples, and how large that part is.
    """
    bets = _bets(losses[:, None], delta)[:, 0]
    gains, costs = bets * (1.0 if shares is None else shares), bets * losses

    def stake(rate: float) -> float:
        with np.errstate(divide="ignore"):
            return float(np.cumsum(np.log1p(rate * gains - costs)).max())

    return _invert(lambda rate: exp(-max(stake(rate), 0.0)), 0.0, delta, _BETTING_HALVINGS)


def shown_by_betting(losses: NDArray[np.float64], rate: float, delta: float) -> NDArray[np.bool_]:
    """Whether ``betting_bound`` of each column of ``losses`` ``[n, k]`` is at most ``rate``: bool
    ``[k]``. The bound itself is not computed."""
    if rate <= 0:
        return np.zeros(losses.shape[1], bool)
    stakes = np.cumsum(np.log1p(_bets(losses, delta) * (rate - losses)), axis=0)
    shown: NDArray[np.bool_] = stakes.max(axis=0) >= log(1 / delta)
    return shown


def _bets(losses: NDArray[np.float64], delta: float) -> NDArray[np.float64]:
    """What is bet on each of ``losses`` ``[n, k]``, by those before it."""
    count, seen = len(losses), np.arange(2, len(losses) + 2)[:, None]
    means = (0.5 + np.cumsum(losses, axis=0)) / seen
    spreads = (0.25 + np.cumsum((losses - means) ** 2, axis=0)) / seen
    known = np.concatenate([np.full((1, losses.shape[1]), 0.25), spreads[:-1]])
    bets: NDArray[np.float64] = np.minimum(1.0, np.sqrt(2 * log(1 / delta) / (count * known)))
    return bets


@lru_cache(maxsize=4096)
def _bound_without_loss(count: int, delta: float) -> float:
    return betting_bound(np.zeros(count), delta)


def least_groups(allowed: float, delta: float) -> float:
    """How many groups without an error show that the risk is at most ``allowed``; infinite for
    less than a millionth."""
    if allowed < 2.0**-_BETTING_HALVINGS:
        return inf
    low, high = 0, 1
    while _bound_without_loss(high, delta) > allowed:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _bound_without_loss(middle, delta) > allowed:
            low = middle
        else:
            high = middle
    return high


def least_samples(error_rate: float, allowed: float, delta: float) -> float:
    """How many samples with this share of errors show that the risk is below ``allowed``.

    By Hoeffding's tail, log(1/delta) / h(error_rate, allowed), which both p-values are within;
    exact without errors, where it is log(delta) / log(1 - allowed). Infinite if the rate is not
    below what is allowed.
    """
    distance = _relative_entropy(error_rate, allowed) if error_rate < allowed else 0.0
    return ceil(log(1 / delta) / distance - _ROUNDING) if distance > 0 else inf


def _invert(
    p_value: Callable[[float], float], low: float, delta: float, halvings: int = _HALVINGS
) -> float:
    """The largest rate above ``low`` that is not rejected; p-values fall as the rate grows."""
    high = 1.0
    for _ in range(halvings):
        middle = (low + high) / 2
        if p_value(middle) > delta:
            low = middle
        else:
            high = middle
    return high


def _relative_entropy(mean: float, rate: float) -> float:
    """h(mean, rate) of two Bernoulli distributions, in nats."""
    total = 0.0
    for part, whole in ((mean, rate), (1 - mean, 1 - rate)):
        if part > 0:
            if whole <= 0:
                return inf
            total += part * log(part / whole)
    return max(total, 0.0)


def _binomial_cdf(samples: int, rate: float, last: int) -> NDArray[np.float64]:
    """P(Binomial(samples, rate) <= k) for k from 0 to ``last``, summed in the log domain."""
    if rate <= 0:
        return np.ones(last + 1)
    if rate >= 1:
        cdf = np.zeros(last + 1)
        cdf[samples:] = 1.0
        return cdf
    k = np.arange(last)
    log_ratio = np.log(samples - k) - np.log(k + 1) + np.log(rate) - np.log1p(-rate)
    log_mass = samples * np.log1p(-rate) + np.concatenate(([0.0], np.cumsum(log_ratio)))
    result: NDArray[np.float64] = np.minimum(np.cumsum(np.exp(log_mass)), 1.0)
    return result
