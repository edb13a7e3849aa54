"""A cap on the board's power while it serves."""

from __future__ import annotations

from math import exp, inf, isfinite

from delen.core.energy_status import ConstraintStatus
from delen.errors import Overloaded
from policies.energy.constraint import Market, PowerView
from policies.energy.power_limiter import PowerLimiter

_MARGIN = 0.01
"""The share of the cap that is aimed below it, for what chance adds to ten seconds."""

_PEAK = 0.1
"""Seconds of the cap that requests may spend at once."""

_AIM = 0.95
"""The share of what is left that the price plans with: demand is not even, and what comes together
by chance would else be refused."""

_EVEN = 0.2
"""Seconds in which the price makes up for a bucket that is not half full."""

_SMOOTH = 1.0
_RETRY = 5.0
"""Seconds after which to come again where requests are not left any power."""


class WattCap:
    """Keeps the measured total below ``watts``: what is not requests' own is left to the rest.

    Two hands: the price makes the expected demand fit, and a bucket of a fraction of a second
    holds back what comes in a rush until the price has followed.
    """

    def __init__(self, watts: float) -> None:
        if not (isfinite(watts) and watts > 0):
            raise ValueError(f"watts is {watts:g}; a watt cap must be above 0 and finite")
        self.watts = watts
        self.price = 0.0
        self._limiter = PowerLimiter()
        self._total: float | None = None
        self._time = 0.0
        self._market: Market | None = None

    def tick(self, view: PowerView, market: Market) -> None:
        self._market = market
        available = max(0.0, (1 - _MARGIN) * self.watts - (market.baseline or 0.0))
        self._limiter.set(available, _PEAK * self.watts, view.now)
        wanted = _AIM * available + self._limiter.surplus / _EVEN if available > 0 else 0.0
        self.price = market.price_for(max(0.0, wanted))
        if view.watts is None:
            self._total = None
        elif self._total is None:
            self._total = view.watts
        else:
            follow = 1 - exp(-max(0.0, view.now - self._time) / _SMOOTH)
            self._total += follow * (view.watts - self._total)
        self._time = view.now

    def allowance(self, now: float) -> float:
        return self._limiter.allowance(now)

    def spend(self, joules: float) -> None:
        self._limiter.spend(joules)

    def refuse(self, least: float, now: float) -> Overloaded:
        wait = self._limiter.wait(least)
        if wait == inf:
            return Overloaded(
                f"the device draws {self._beside():.3g} W without requests, which leaves them "
                f"nothing of the watt cap of {self.watts:g} W",
                retry_after=_RETRY,
            )
        return Overloaded(
            f"the watt cap of {self.watts:g} W leaves requests {self._limiter.watts:.3g} W, and "
            "all of it is taken now",
            retry_after=wait,
        )

    def status(self) -> ConstraintStatus:
        total = self._total
        return ConstraintStatus(
            name="watt_cap",
            unit="W",
            limit=self.watts,
            value=total,
            headroom=None if total is None else self.watts - total,
            price=self.price,
            binding=self.price > 0,
            explanation=self._explain(),
        )

    def _beside(self) -> float:
        return (self._market.baseline if self._market else None) or 0.0

    def _explain(self) -> str:
        market = self._market
        if market is None:
            return "it was set a moment ago"
        if market.baseline is None:
            return (
                "the power beside requests is unknown, so requests are held to "
                f"{self._limiter.watts:.3g} W of predicted energy"
            )
        known = "draws" if market.measured else "drew (the sensor does not answer now)"
        return (
            f"the device {known} {market.baseline:.3g} W without requests, which leaves them "
            f"{self._limiter.watts:.3g} W; they demand {market.watts_at(0.0):.3g} W"
        )
