"""A battery that is to last: what it holds is spent evenly over the time that is left."""

from __future__ import annotations

from math import inf

from delen.core.energy_status import Battery, BatteryStatus, ConstraintStatus
from delen.errors import Overloaded
from policies.energy.constraint import Market, PowerView
from policies.energy.power_limiter import PowerLimiter

_LEAST_TIME = 0.5
"""The last moments are planned as if there were this many seconds."""

_AHEAD = 5.0
_AHEAD_SHARE = 0.01
"""What may be spent ahead: the energy of 5 s, or of this share of the time if that is less. The
price aims to keep half of it, for what comes together by chance."""

_RETRY = 60.0


class BatteryHorizon:
    """Lets the device draw what is left above the reserve over the time that is left.

    Both are taken anew at every tick from the measured energy, so that errors of prediction and
    changes of load are spread over the rest. While nothing is measured, the energy that requests
    used and the last known power beside them count. Past its time only the reserve is kept.
    """

    def __init__(self, battery: Battery, now: float) -> None:
        self.battery = battery
        self.price = 0.0
        self.used = 0.0
        self._began = now
        self._time = self._counted = now
        self._unseen = 0.0
        self._joules: float | None = None
        self._limiter = PowerLimiter()
        self._watts = 0.0
        self._measured: bool | None = None
        self._baseline = 0.0
        self._remaining = battery.last
        self._allowed: float | None = None

    @property
    def left(self) -> float:
        """Joules above the reserve."""
        return self.battery.joules - self.used - self.battery.reserve

    def tick(self, view: PowerView, market: Market) -> None:
        self._count(view, market)
        remaining = self._began + self.battery.last - view.now
        self._baseline, self._remaining = market.baseline or 0.0, remaining
        if remaining <= 0:
            allowed = inf if self.left > 0 else 0.0
        else:
            allowed = max(0.0, self.left) / max(remaining, _LEAST_TIME)
        self._allowed = allowed if allowed < inf else None
        available = max(0.0, allowed - self._baseline)
        if available == inf:
            self.price, self._limiter = 0.0, PowerLimiter()
        else:
            ahead = min(_AHEAD, _AHEAD_SHARE * self.battery.last)
            self._limiter.set(available, available * ahead, view.now)
            wanted = available + self._limiter.surplus / ahead if available > 0 else 0.0
            self.price = market.price_for(max(0.0, wanted))
        self._watts = self._baseline + min(market.watts_at(self.price), available)

    def allowance(self, now: float) -> float:
        return self._limiter.allowance(now)

    def spend(self, joules: float) -> None:
        self._limiter.spend(joules)

    def refuse(self, least: float, now: float) -> Overloaded:
        if self.left <= 0:
            return Overloaded("the battery is down to its reserve", retry_after=_RETRY)
        wait = self._limiter.wait(least)
        if wait == inf:
            return Overloaded(
                f"the battery cannot last: the device draws {self._baseline:.3g} W without "
                "requests",
                retry_after=_RETRY,
            )
        return Overloaded(
            f"the battery leaves requests {self._limiter.watts:.3g} W until its time is over, and "
            "all of it is taken now",
            retry_after=wait,
        )

    def status(self) -> ConstraintStatus:
        elapsed = self._time - self._began
        lasts = elapsed + max(0.0, self.left) / self._watts if self._watts > 0 else None
        explanation = f"{max(0.0, self.left):.4g} J are left above the reserve"
        if lasts is not None:
            explanation += (
                f"; at the {self._watts:.3g} W of now they last {lasts - elapsed:.4g} s, and are "
                f"to last {max(0.0, self._remaining):.4g} s"
            )
        if self._measured is False:
            explanation += " (by predicted energy: no sensor answers now)"
        return ConstraintStatus(
            name="battery",
            unit="s",
            limit=self.battery.last,
            value=lasts,
            headroom=None if lasts is None else lasts - self.battery.last,
            price=self.price,
            binding=self.price > 0,
            explanation=explanation,
        )

    def describe(self) -> BatteryStatus:
        """The battery as of the last tick."""
        lasts = max(0.0, self.left) / self._watts if self._watts > 0 else None
        return BatteryStatus(
            left=self.battery.joules - self.used,
            reserve=self.battery.reserve,
            last=max(0.0, self._remaining),
            allowed=self._allowed,
            lasts=lasts,
        )

    def _count(self, view: PowerView, market: Market) -> None:
        """Measured joules as they advance. Where they stop, all since they last did is predicted:
        that a sensor stalls is noticed late."""
        self._unseen += market.used
        if view.joules is None or self._joules is None:
            elapsed = max(0.0, view.now - self._counted)
            self.used += (market.baseline or 0.0) * elapsed + self._unseen
            self._counted, self._unseen = view.now, 0.0
        elif view.joules != self._joules:
            self.used += max(0.0, view.joules - self._joules)
            self._counted, self._unseen = view.now, 0.0
        self._measured = view.joules is not None
        self._joules = view.joules
        self._time = view.now
