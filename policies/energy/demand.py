"""The demand of requests for energy: how many joules a second they would draw at each price."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import exp, inf, sqrt

from delen.core.frontier import Frontier

_FORGOTTEN = 6.0
"""Arrivals this many time constants ago are dropped: they weigh 0.25 %."""

_MOST = 32
"""Of more frontiers than these, the one longest not seen passes its arrivals on to a new one: they
are mostly the same requests at energies that were corrected since."""

_FIRST = 1.0
"""A first arrival is taken for a rate of one in this many seconds, or in half a time constant."""

_CLOSE = 1.002
"""Prices are found up to this factor."""


class Demand:
    """Arrivals a second, by the frontier that they could choose from.

    An exponentially weighted mean with time constant ``memory`` (seconds), corrected for how long
    it has been listening.
    """

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._began: float | None = None
        self._rates: dict[Frontier, tuple[float, float]] = {}

    def arrived(self, now: float, frontier: Frontier) -> None:
        """One request came that any choice of ``frontier`` would do for."""
        if self._began is None:
            self._began = now
        if frontier in self._rates or len(self._rates) < _MOST:
            earlier = frontier
        else:
            earlier = min(self._rates, key=lambda known: self._rates[known][1])
        rate, since = self._rates.pop(earlier, (0.0, now))
        self._rates[frontier] = (rate * exp((since - now) / self._memory) + 1 / self._memory, now)

    def rates(self, now: float) -> tuple[tuple[float, Frontier], ...]:
        """Arrivals a second of each frontier; forgets those that have not come for long."""
        if self._began is None:
            return ()
        oldest = now - _FORGOTTEN * self._memory
        self._rates = {f: seen for f, seen in self._rates.items() if seen[1] >= oldest}
        if not self._rates:
            self._began = None
            return ()
        listened = max(0.0, now - self._began) + min(_FIRST, self._memory / 2)
        whole = 1 - exp(-listened / self._memory)
        return tuple(
            (rate * exp((since - now) / self._memory) / whole, frontier)
            for frontier, (rate, since) in self._rates.items()
        )


def watts(rates: Iterable[tuple[float, Frontier]], price: float) -> float:
    """Joules a second of arrivals at these ``rates`` when all choose at ``price``."""
    return sum(rate * frontier.energy_at(price) for rate, frontier in rates)


def price_range(rates: Iterable[tuple[float, Frontier]]) -> tuple[float, float] | None:
    """The lowest and the highest price at which any choice changes; None where none does."""
    steps = [frontier.prices for _, frontier in rates if frontier.prices]
    return (
        (min(prices[-1] for prices in steps), max(prices[0] for prices in steps)) if steps else None
    )


def least_price(
    watts_at: Callable[[float], float], allowed: float, between: tuple[float, float] | None
) -> float:
    """The lowest price at which ``watts_at`` is at most ``allowed``, within a fraction of it.

    ``watts_at`` must not rise with the price, and change ``between`` these prices alone. 0 where
    nothing need be saved; infinite where not even the least choices are few enough joules.
    """
    if watts_at(0.0) <= allowed:
        return 0.0
    if between is None or watts_at(inf) > allowed:
        return inf
    low, high = between[0] / _CLOSE, between[1]
    if watts_at(low) <= allowed:
        return low
    while high > low * _CLOSE:
        middle = sqrt(low * high)
        if watts_at(middle) <= allowed:
            high = middle
        else:
            low = middle
    return high
