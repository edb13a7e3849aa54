"""What the constraints on energy see, and what each says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from delen.core.energy_status import ConstraintStatus
from delen.errors import Overloaded
from policies.energy.demand import least_price


@dataclass(frozen=True, slots=True)
class PowerView:
    """The power of the moment; None is unknown.

    ``now``: seconds, monotonic. ``watts``: the measured total, as the mean since the last view.
    ``static`` and ``other``: watts without requests, and of what is none of theirs. ``joules``:
    measured in total since any fixed moment, for the battery. ``headroom``: degrees Celsius below
    the nearest trip point, by the last temperatures that were read; those of ``unread_zones`` are
    unknown now. ``lag``: the sensor's time constant in seconds. ``estimated``: the watts
    and joules are not measured, and know nothing of what the device draws beside requests.
    ``margins``: how many times what they are predicted to take, by tenant, requests may take at the
    most; those of tenants not named take that of the empty name.
    """

    now: float
    watts: float | None = None
    static: float | None = None
    other: float | None = None
    joules: float | None = None
    headroom: float | None = None
    lag: float | None = None
    unread_zones: tuple[str, ...] = ()
    estimated: bool = False
    margins: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Market:
    """What requests would draw at each price, and what the device draws beside them.

    ``watts_at`` falls with the price, and changes only between the prices ``between`` (None: not
    at all). ``baseline`` are watts beside requests, None while unknown; ``measured`` says whether
    they come from a sensor that answers now. ``used`` are the joules that requests used since
    the last tick.
    """

    watts_at: Callable[[float], float]
    between: tuple[float, float] | None
    baseline: float | None = None
    measured: bool = False
    used: float = 0.0

    def price_for(self, watts: float) -> float:
        """The lowest price at which requests draw at most ``watts``."""
        return least_price(self.watts_at, watts, self.between)


class Constraint(Protocol):
    """One limit on what all requests together draw. ``price`` is in accuracy per joule."""

    price: float

    def tick(self, view: PowerView, market: Market) -> None: ...
    def allowance(self, now: float) -> float: ...
    def spend(self, joules: float) -> None: ...
    def refuse(self, least: float, now: float) -> Overloaded: ...
    def status(self) -> ConstraintStatus: ...
