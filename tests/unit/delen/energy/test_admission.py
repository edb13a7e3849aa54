from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds
from delen.core.energy_status import Budget
from delen.core.plan import Plan
from delen.core.work import Share, Work
from delen.energy.admission import MOST_EVENTS, ControllerAdmission, Ended, Refused
from delen.energy.ledger import Correction
from delen.errors import BatchTooLarge, BudgetExhausted
from delen.profile.cost_model import CostModel
from policies.energy.api import ControllerSettings
from policies.energy.constraint import PowerView
from policies.energy.price_controller import PriceController
from policies.plan.planner import Planner, PlannerSettings


class Limited(PriceController):
    """A price controller that allows just ``left`` joules, and counts."""

    def __init__(self, left: float) -> None:
        super().__init__(ControllerSettings())
        self.left = left
        self.arrivals = 0

    def arrived(self, *arguments: Any) -> None:
        self.arrivals += 1

    def allowance(self, tenant: str, now: float) -> float:
        return self.left

    def reserve(self, tenant: str, joules: float) -> None:
        self.left -= joules

    def spent(self, tenant: str, reserved: float, used: float) -> None:
        self.left += reserved - used

    def refuse(self, tenant: str, least: float, now: float) -> BudgetExhausted:
        return BudgetExhausted(f"{tenant} lacks {least:g} J", retry_after=3.0)


@pytest.fixture
def plan_at(
    make_costs: Callable[..., CostModel], make_calibration: Callable[..., Calibration]
) -> Callable[[float], Plan]:
    planner = Planner(make_calibration(0.6, 0.8, 0.9), PlannerSettings())
    costs = make_costs(0.01, 0.01, 0.01, watts=4.0)
    return lambda price: planner.plan(Bounds(), costs, price=price)


def test_what_fits_is_admitted_as_planned(plan_at: Callable[[float], Plan]) -> None:
    controller = Limited(1.0)
    admission, plan = ControllerAdmission(controller), plan_at(0.0)
    admitted = admission.admit("cam", plan, plan_at)
    assert admitted == (plan, plan.expected_energy)
    assert controller.left == pytest.approx(1 - admitted.reserved)
    admission.ended(Share("r", "cam"), admitted.reserved, 0.3, None)
    assert controller.left == pytest.approx(0.7)


def test_what_does_not_fit_is_planned_as_cheaply_as_it_goes(
    plan_at: Callable[[float], Plan],
) -> None:
    least = plan_at(inf)
    assert least.expected_energy is not None
    controller = Limited(least.expected_energy)
    admitted = ControllerAdmission(controller).admit("cam", plan_at(0.0), plan_at)
    assert admitted == (least, least.expected_energy)
    assert (controller.left, controller.arrivals) == (0, 1)


def test_what_even_so_does_not_fit_is_refused(plan_at: Callable[[float], Plan]) -> None:
    admission = ControllerAdmission(Limited(0.001))
    with pytest.raises(BudgetExhausted, match="cam lacks"):
        admission.admit("cam", plan_at(0.0), plan_at)
    admission.refused("cam", BudgetExhausted.code)
    assert admission.drain() == [Refused("cam", "budget_exhausted")]


def test_a_preview_is_decided_as_an_admission_is_and_reserves_nothing(
    plan_at: Callable[[float], Plan],
) -> None:
    plan, least = plan_at(0.0), plan_at(inf)
    assert plan.expected_energy is not None
    assert least.expected_energy is not None
    for left, expected in ((plan.expected_energy, plan), (least.expected_energy, least)):
        controller = Limited(left)
        assert ControllerAdmission(controller).preview("cam", plan, plan_at) == expected
        assert (controller.left, controller.arrivals) == (left, 0)
        assert ControllerAdmission(controller).admit("cam", plan, plan_at).plan == expected
    with pytest.raises(BudgetExhausted, match="cam lacks"):
        ControllerAdmission(Limited(0.001)).preview("cam", plan, plan_at)


def test_energy_that_is_unknown_costs_nothing(plan_at: Callable[[float], Plan]) -> None:
    plan = plan_at(0.0)._replace(energy=None, expected_energy=None)
    assert ControllerAdmission(Limited(0.0)).admit("cam", plan, plan_at) == (plan, 0.0)


def test_a_plan_without_an_expectation_counts_to_its_end(
    plan_at: Callable[[float], Plan],
) -> None:
    plan = plan_at(0.0)._replace(expected_energy=None)
    assert ControllerAdmission(Limited(9.0)).admit("cam", plan, plan_at).reserved == plan.energy


def test_what_happened_is_handed_on_once_and_in_order() -> None:
    admission = ControllerAdmission(Limited(1.0))
    work = Work("tiny", 0, 1, 0.0, 1.0, None, (Share("r", "cam"),))
    admission.ran(work)
    admission.ended(Share("r", "cam"), 0.0, None, None)
    assert admission.pending() == [work, (Share("r", "cam"), None, None)]
    assert admission.drain() == [work, (Share("r", "cam"), None, None)]
    assert admission.pending() == []
    assert admission.drain() == []


def test_a_budget_is_charged_the_most_that_requests_may_have_taken() -> None:
    controller, budget = PriceController(ControllerSettings()), Budget(100.0, 60.0)
    admission = ControllerAdmission(controller, clock=lambda: 1.0)
    admission.doubt = 1.0
    admission.set_budget("cam", budget)

    def spent() -> float:
        return admission.budgets()["cam"].spent

    admission.ended(Share("a", "cam"), 0.0, 2.0, None)
    [ended] = admission.drain()
    assert isinstance(ended, Ended)
    assert spent() == ended.charged == 8.0, "three standard deviations more"
    admission.settle([Correction("cam", 8.0, 3.0, 4.5)])
    assert spent() == pytest.approx(4.5)
    admission.ended(Share("b", "cam"), 0.0, 2.0, None)
    assert spent() == pytest.approx(4.5 + 3.0), "by as much more as what was settled"
    admission.ended(Share("c", "other"), 0.0, 2.0, None)
    charged = [event.charged for event in admission.drain() if isinstance(event, Ended)]
    assert charged == [3.0, None]
    allowed = controller.allowance("cam", 1.0)
    admission.tick(PowerView(1.0))
    assert controller.allowance("cam", 1.0) == pytest.approx(allowed / 1.5)


class Broken(Limited):
    def spent(self, tenant: str, reserved: float, used: float) -> None:
        raise ArithmeticError("no account of it")


def test_a_controller_that_fails_at_the_end_is_logged_once(
    caplog: pytest.LogCaptureFixture, failed: Callable[[str], int]
) -> None:
    admission = ControllerAdmission(Broken(1.0))
    share = Share("r", "cam")
    admission.ended(share, 0.1, 0.1, None)
    admission.ended(share, 0.1, 0.1, None)
    assert admission.drain() == [(share, None, None)] * 2
    assert (len(caplog.records), failed("energy_controller")) == (1, 2)


def test_where_nobody_takes_the_events_the_latest_are_kept() -> None:
    admission = ControllerAdmission(Limited(1.0))
    work = Work("tiny", 0, 1, 0.0, 1.0, None, ())
    for _ in range(MOST_EVENTS):
        admission.ran(work)
    admission.ended(Share("r", "cam"), 0.0, None, None)
    events = admission.drain()
    assert len(events) == MOST_EVENTS
    assert events[-1] == (Share("r", "cam"), None, None)


def test_a_batch_is_reserved_whole_or_not_at_all(plan_at: Callable[[float], Plan]) -> None:
    plan = plan_at(0.0)
    assert plan.expected_energy is not None
    controller = Limited(10.5 * plan.expected_energy)
    admission = ControllerAdmission(controller)
    least = plan_at(inf).expected_energy
    assert least is not None
    with pytest.raises(BudgetExhausted, match=f"lacks {1000 * least:g} J"):
        admission.admit("cam", plan, plan_at, 1000)
    assert controller.left == 10.5 * plan.expected_energy
    assert admission.admit("cam", plan, plan_at, 10) == (plan, plan.expected_energy)
    assert controller.left == pytest.approx(0.5 * plan.expected_energy)
    assert controller.arrivals == 1010


def test_a_batch_beyond_a_whole_budget_names_the_size_that_it_is_enough_for(
    plan_at: Callable[[float], Plan],
) -> None:
    now = [0.0]
    admission = ControllerAdmission(PriceController(ControllerSettings()), clock=lambda: now[0])
    least = plan_at(inf).expected_energy
    assert least is not None
    admission.set_budget("cam", Budget(20.5 * least, 60.0))
    with pytest.raises(BatchTooLarge) as refused:
        admission.admit("cam", plan_at(0.0), plan_at, 21)
    assert refused.value.largest == 20
    with pytest.raises(BudgetExhausted) as early:
        admission.admit("cam", plan_at(0.0), plan_at, 20)
    now[0] = early.value.retry_after
    assert admission.admit("cam", plan_at(0.0), plan_at, 20).reserved == least
    with pytest.raises(BudgetExhausted):
        admission.set_budget("small", Budget(0.5 * least, 60.0))
        admission.admit("small", plan_at(0.0), plan_at, 2)
