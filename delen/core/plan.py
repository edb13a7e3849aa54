"""The plan of a request, and what an exit policy sees and decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from delen.core.bounds import Bounds
from delen.core.fleet_terms import NO_TERMS, FleetTerms
from delen.core.frontier import Frontier
from delen.core.result import Reason
from delen.core.variant import Size
from delen.errors import BudgetExhausted, Nearest, Overloaded

LimitedBy = Literal["latency", "energy", "memory", "depth", "price", "fleet"]


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One exit as a place to stop: cumulative latency (s) and energy (J), accuracy over all inputs.

    ``dominated`` is true when an earlier exit is at least as accurate, or at another ``size`` one
    that takes no longer. The ``size`` (height, width) is None where the model has one.
    """

    exit: int
    accuracy: float
    latency: float
    energy: float | None
    dominated: bool
    size: Size | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """Expected accuracy at one exit for each way in which an answer can end there; None if too few
    calibration samples are in that case."""

    confident: float | None
    planned: float | None
    forced: float | None


UNKNOWN_CASE = Case(None, None, None)


class Plan(NamedTuple):
    """The operating point chosen for one request.

    ``exit`` is the deepest exit it may run to. ``threshold`` is the calibrated confidence at
    which it stops earlier, None if confidence does not matter. ``latency`` (s) and ``energy`` (J)
    are predicted for running to ``exit``; ``expected_energy`` is the mean over inputs, which early
    confident stops make smaller. ``accuracy`` is expected over all requests with this plan, None
    under an exit policy that does not follow plans. ``guarantee`` is the level at which
    ``min_accuracy`` holds, None without a floor or if it cannot be kept. ``limited_by`` says what
    set the depth: ``price`` if the price of energy or of time chose less than the bounds allow,
    ``fleet`` if a ceiling did. ``frontier`` is what could have been chosen, a single choice if the
    bounds leave no other, ``price`` what a joule cost in accuracy, and ``terms`` what the fleet
    asked. ``infeasible`` says what a best effort could not keep, and
    ``unguaranteed`` why no floor is guaranteed. It runs at ``size``, None where the model has one.
    """

    exit: int
    threshold: float | None
    latency: float
    energy: float | None
    expected_energy: float | None
    accuracy: float | None
    guarantee: float | None
    limited_by: LimitedBy
    cases: tuple[Case, ...]
    frontier: Frontier
    infeasible: str | None = None
    nearest: Nearest | None = None
    price: float = 0.0
    unguaranteed: str | None = None
    size: Size | None = None
    terms: FleetTerms = NO_TERMS

    def taking(self, latency: float) -> Plan:
        """The same plan with another predicted ``latency`` in seconds."""
        exit, threshold, _, *others = self
        return Plan._make((exit, threshold, latency, *others))


@dataclass(frozen=True, slots=True)
class Preview:
    """What bounds would buy now. Latencies in seconds, energies in joules; None is unknown.

    It describes the plan, which is the best effort if it is not ``feasible``; then ``problem`` says
    why and ``nearest`` which bounds could be kept. ``points`` are all exits as operating points.
    ``price`` is the price of energy for this tenant now, in accuracy per joule. ``unguaranteed``
    says why no floor is guaranteed. Where a limit on energy would refuse the request now,
    ``constraint`` names it, and ``retry_after`` seconds from now it may not.
    """

    model: str
    feasible: bool
    problem: str | None
    nearest: Nearest | None
    exit: int
    threshold: float | None
    limited_by: str
    latency: float
    energy: float | None
    expected_energy: float | None
    accuracy: float | None
    guarantee: float | None
    points: tuple[OperatingPoint, ...]
    price: float = 0.0
    unguaranteed: str | None = None
    constraint: str | None = None
    retry_after: float | None = None
    size: Size | None = None

    @classmethod
    def of(
        cls,
        model: str,
        plan: Plan,
        points: tuple[OperatingPoint, ...],
        refusal: BudgetExhausted | Overloaded | None = None,
    ) -> Preview:
        """Of a request for ``plan``, which energy control refuses where there is a ``refusal``."""
        return cls(
            model=model,
            feasible=plan.infeasible is None and refusal is None,
            problem=plan.infeasible if refusal is None else str(refusal),
            nearest=plan.nearest,
            exit=plan.exit,
            threshold=plan.threshold,
            limited_by=plan.limited_by,
            latency=plan.latency,
            energy=plan.energy,
            expected_energy=plan.expected_energy,
            accuracy=plan.accuracy,
            guarantee=plan.guarantee,
            points=points,
            price=plan.price,
            unguaranteed=plan.unguaranteed,
            constraint=None if refusal is None else refusal.constraint,
            retry_after=None if refusal is None else refusal.retry_after,
            size=plan.size,
        )


class ExitView(NamedTuple):
    """What an exit policy may see. Times in seconds, energies in joules, both since arrival.

    ``next_exit`` is the next useful exit within the plan, None if there is none.
    ``time_to_next`` is the time to reach it and answer, at the quantile that plans use.
    ``accuracy`` is the exit's over all inputs; ``macs`` are cumulative multiply-adds.
    """

    exit: int
    exits: int
    confidence: float
    accuracy: float
    macs: int
    elapsed: float
    energy: float | None
    next_exit: int | None
    time_to_next: float
    energy_at_next: float | None
    bounds: Bounds
    plan: Plan


@dataclass(frozen=True, slots=True)
class Decision:
    """Stop for ``reason``, or go on (``reason`` None)."""

    reason: Reason | None

    @property
    def stop(self) -> bool:
        return self.reason is not None


GO_ON = Decision(None)
