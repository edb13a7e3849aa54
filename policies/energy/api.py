"""The protocol of energy controllers: what they receive and what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from delen.core.energy_status import Battery, BatteryStatus, Budget, ConstraintStatus
from delen.core.frontier import Frontier
from delen.errors import DelenError
from policies.energy.budget import BudgetState
from policies.energy.constraint import PowerView


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """What controllers are made with. ``thermal_margin``: below this many degrees Celsius of
    headroom, energy gets a price; 0 leaves the temperature out."""

    thermal_margin: float = 5.0

    def __post_init__(self) -> None:
        if not self.thermal_margin >= 0:
            raise ValueError(f"thermal_margin is {self.thermal_margin:g}; it must be 0 or more")


class EnergyController(Protocol):
    """Puts a price on energy, in accuracy per joule, and says how much may be spent at once.

    A request's life: ``price`` gives what its plan is made with, ``arrived`` takes the frontier of
    that plan, ``allowance`` says how many joules may be admitted (infinite where nothing limits
    them), and where even the least does not fit, ``refuse`` gives the error to raise. ``reserve``
    takes the joules of an admitted request, ``spent`` replaces them by what it used (0 where it
    ran nothing) as estimated at its answer, and ``settled`` replaces that estimate by what was
    attributed. Joules that are unknown are left out of all of these.

    Pure and without a lock: callers hold one. Times are seconds of a monotonic clock.
    """

    name: str

    def tick(self, view: PowerView) -> None:
        """Take in the power of the moment; called several times a second."""

    def price(self, tenant: str) -> float:
        """Accuracy per joule for requests of ``tenant``: 0 is free, infinite the least energy."""

    def arrived(self, now: float, tenant: str, frontier: Frontier) -> None:
        """A request came that could have any choice of ``frontier``; also where it is refused."""

    def allowance(self, tenant: str, now: float) -> float:
        """Joules that may be spent at once."""

    def refuse(self, tenant: str, least: float, now: float) -> DelenError:
        """Why ``least`` joules do not fit: BudgetExhausted or Overloaded, with ``retry_after``."""

    def reserve(self, tenant: str, joules: float) -> None: ...
    def spent(self, tenant: str, reserved: float, used: float) -> None: ...
    def settled(self, tenant: str, estimated: float, attributed: float) -> None: ...

    def constraints(self) -> Sequence[ConstraintStatus]:
        """Each constraint in force, as of the last tick; ``binding`` are those that set a price."""

    def battery(self) -> BatteryStatus | None:
        """The battery as of the last tick; None where none was given."""

    def set_watt_cap(self, watts: float | None) -> None:
        """Cap the total that the source measures; None lifts it."""

    def set_battery(self, battery: Battery | None, now: float) -> None:
        """Make what the battery holds ``now`` last; None forgets it."""

    def set_budget(
        self, tenant: str, budget: Budget | None, now: float, spent: float = 0.0
    ) -> None:
        """Give ``tenant`` a budget; what it spent in the last period stays spent.

        ``spent`` joules count as spent just before ``now`` (a budget from before a restart).
        """

    def budgets(self, now: float) -> Mapping[str, BudgetState]:
        """The budgets in force, by tenant; asking changes nothing."""
