"""Less work as the device nears a trip point, before the hardware throttles it."""

from __future__ import annotations

from math import exp, inf

from delen.core.energy_status import ConstraintStatus
from delen.errors import Overloaded
from policies.energy.constraint import Market, PowerView

_SMOOTH = 3.0
"""Seconds over which the headroom is averaged: zones report whole or half degrees."""


class ThermalHeadroom:
    """Below ``margin`` degrees Celsius of headroom, requests get the share of the watts they ask
    for that the headroom is of the margin. It never refuses: the device protects itself. A zone
    that can no longer be read counts as no cooler than it was, and the headroom as unknown."""

    def __init__(self, margin: float) -> None:
        self.margin = margin
        self.price = 0.0
        self._headroom: float | None = None
        self._time: float | None = None
        self._unread: tuple[str, ...] = ()

    def tick(self, view: PowerView, market: Market) -> None:
        self._follow(view)
        if self._headroom is None or self._headroom >= self.margin:
            self.price = 0.0
            return
        share = max(0.0, self._headroom) / self.margin
        self.price = inf if share == 0 else market.price_for(share * market.watts_at(0.0))

    def allowance(self, now: float) -> float:
        return inf

    def spend(self, joules: float) -> None:
        """Heat follows power slowly; nothing is counted."""

    def refuse(self, least: float, now: float) -> Overloaded:
        return Overloaded("the device is near its thermal limit", retry_after=_SMOOTH)

    def status(self) -> ConstraintStatus:
        known = None if self._unread else self._headroom
        return ConstraintStatus(
            name="thermal",
            unit="degC",
            limit=self.margin,
            value=known,
            headroom=None if known is None else known - self.margin,
            price=self.price,
            binding=self.price > 0,
            explanation=self._explanation(),
        )

    def _explanation(self) -> str:
        if self._unread:
            return (
                f"unknown, since {', '.join(self._unread)} can no longer be read; requests are "
                "given power as if it were still as hot as it was then"
            )
        if self._headroom is None:
            return "no trip point is known"
        return (
            f"the nearest trip point is {self._headroom:.3g} degrees away; below {self.margin:g} "
            "requests are given less power"
        )

    def _follow(self, view: PowerView) -> None:
        elapsed = 0.0 if self._time is None else max(0.0, view.now - self._time)
        self._time, self._unread = view.now, view.unread_zones
        if view.headroom is None or self._headroom is None:
            self._headroom = view.headroom
        else:
            follow = 1 - exp(-elapsed / _SMOOTH)
            self._headroom += follow * (view.headroom - self._headroom)
