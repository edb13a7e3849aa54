"""The engine's side of energy control: the price of a joule now, and what was spent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from delen.core.plan import Plan
from delen.core.result import Result
from delen.core.work import Share, Work

ANYBODY = ""
"""A tenant that nobody can be, and so one without a budget: its price is the price for all."""


class Admitted(NamedTuple):
    """The plan that each sample of a request may run, and the joules reserved for each."""

    plan: Plan
    reserved: float


class EnergyAdmission(Protocol):
    """Energy control as the engine sees it. Many threads call it; it has to be quick.

    ``price`` is in accuracy per joule, for requests of ``tenant``. ``admit`` reserves the joules
    that ``plan`` is expected to take for all ``samples`` of a request. If these are too many now,
    it reserves those of a cheaper plan by ``replan``, which plans at another price; if these are
    too many as well, it reserves none and raises BudgetExhausted, Overloaded, or BatchTooLarge
    where they always will be. ``preview`` decides the same for one sample and reserves nothing.
    ``ran`` is called with every batch before its answers leave. ``ended`` is called for every
    admitted sample just before its answer, or its failure (``result`` None), reaches the caller;
    ``used`` are its joules as far as they are known by then. ``refused`` is called once for every
    request that gets an error of that ``code`` instead of an answer, admitted or not.
    """

    def price(self, tenant: str) -> float: ...
    def admit(
        self, tenant: str, plan: Plan, replan: Callable[[float], Plan], samples: int = 1
    ) -> Admitted: ...
    def preview(self, tenant: str, plan: Plan, replan: Callable[[float], Plan]) -> Plan: ...
    def ran(self, work: Work) -> None: ...
    def ended(
        self, share: Share, reserved: float, used: float | None, result: Result | None
    ) -> None: ...
    def refused(self, tenant: str, code: str) -> None: ...


class UnlimitedEnergy:
    """No energy control: every joule is free, and none is counted."""

    def price(self, tenant: str) -> float:
        return 0.0

    def admit(
        self, tenant: str, plan: Plan, replan: Callable[[float], Plan], samples: int = 1
    ) -> Admitted:
        return Admitted(plan, 0.0)

    def preview(self, tenant: str, plan: Plan, replan: Callable[[float], Plan]) -> Plan:
        return plan

    def ran(self, work: Work) -> None:
        """Nothing is recorded."""

    def ended(
        self, share: Share, reserved: float, used: float | None, result: Result | None
    ) -> None:
        """Nothing was reserved."""

    def refused(self, tenant: str, code: str) -> None:
        """Refusals are not counted."""
