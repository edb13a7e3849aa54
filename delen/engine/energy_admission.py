"""Where the engine asks what a joule costs now, and tells what was spent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from delen.core.plan import Plan
from delen.core.result import Result
from delen.core.work import Share, Work


class Admitted(NamedTuple):
    """The plan that a request may run, and the joules that were set aside for it."""

    plan: Plan
    reserved: float


class EnergyAdmission(Protocol):
    """Energy control as the engine sees it. Called by many threads; it has to be quick.

    ``price`` is in accuracy per joule, for requests of ``tenant``. ``admit`` sets aside what
    ``plan`` is expected to take, or what ``replan`` (which plans at another price) makes of it
    where that is too much now; it raises BudgetExhausted or Overloaded where not even the least
    is left. ``ran`` is told of every batch before its answers leave, ``ended`` of every admitted
    request just before its answer, or its failure (``result`` None), is known to the caller;
    ``used`` are its joules as far as they are known by then. ``refused`` is told of every request
    that gets no answer but an error of that ``code``, admitted or not.
    """

    def price(self, tenant: str) -> float: ...
    def admit(self, tenant: str, plan: Plan, replan: Callable[[float], Plan]) -> Admitted: ...
    def ran(self, work: Work) -> None: ...
    def ended(
        self, share: Share, reserved: float, used: float | None, result: Result | None
    ) -> None: ...
    def refused(self, tenant: str, code: str) -> None: ...


class UnlimitedEnergy:
    """No energy control: every joule is free, and nobody counts."""

    def price(self, tenant: str) -> float:
        return 0.0

    def admit(self, tenant: str, plan: Plan, replan: Callable[[float], Plan]) -> Admitted:
        return Admitted(plan, 0.0)

    def ran(self, work: Work) -> None:
        """Nothing is kept."""

    def ended(
        self, share: Share, reserved: float, used: float | None, result: Result | None
    ) -> None:
        """Nothing was set aside."""

    def refused(self, tenant: str, code: str) -> None:
        """Nobody counts."""
