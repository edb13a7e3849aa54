"""A request's admission: what is checked is booked before anybody else is checked."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds, Options
from delen.core.plan import Plan
from delen.core.result import Result
from delen.engine.backends.base import SegmentRun
from delen.engine.energy_admission import Admitted, UnlimitedEnergy
from delen.errors import (
    BudgetExhausted,
    DelenError,
    Draining,
    InfeasibleBound,
    InvalidInput,
    ModelLoading,
    Overloaded,
)
from delen.profile.cost_model import CostModel
from delen.residency.lease import ALWAYS_RESIDENT, Lease, ModelResidency, still_loading
from policies.fleet.api import Ceiling, Directive, Price
from tests.builders.engine import PATIENCE, build_model, build_runtime
from tests.unit.delen.engine.harness import Clock, Held

SAMPLE = np.zeros((4, 4, 1), np.uint8)


class Budget(UnlimitedEnergy):
    """Has ``left`` joules for all, and counts what it is told."""

    def __init__(self) -> None:
        self.left = inf
        self.admitted = 0
        self.refusals: Counter[str] = Counter()

    def admit(
        self, tenant: str, plan: Plan, replan: Callable[[float], Plan], samples: int = 1
    ) -> Admitted:
        self.admitted += 1
        too_much = plan.energy and samples * plan.energy > self.left
        for each in (plan, replan(inf) if too_much else plan):
            if samples * (joules := each.energy or 0.0) <= self.left:
                self.left -= samples * joules
                return Admitted(each, joules)
        raise BudgetExhausted("nothing is left", retry_after=1.0)

    def ended(self, share: Any, reserved: float, used: float | None, result: Result | None) -> None:
        self.left += reserved

    def refused(self, tenant: str, code: str) -> None:
        self.refusals[code] += 1


class Leaving(ModelResidency):
    """Of a model whose segments leave memory when ``leaves`` says so."""

    def __init__(self) -> None:
        self.leaves = False
        self.waited: list[float] = []
        self.uses: list[int] = []
        self.held = 0
        self.backlog: Callable[[], object] = float

    def record_use(self, exit: int) -> None:
        self.uses.append(exit)

    def lease(self, exit: int, seconds: float) -> Lease:
        if self.leaves and seconds <= 0:
            raise still_loading("tiny", 0.5)
        if self.leaves:
            done = threading.Thread(target=self.backlog)
            done.start()
            done.join(PATIENCE)
            self.waited.append(seconds)
            self.leaves = done.is_alive()
        self.held += exit + 1
        return Lease(self._release, range(exit + 1))

    def _release(self, segment: int) -> None:
        self.held -= 1


class Sure:
    """Answers any image at its first exit."""

    def __init__(self) -> None:
        self.before: Callable[[int], None] = lambda segment: None

    def run(self, segment: int, samples: Sequence[Any], lane: int = 0) -> SegmentRun:
        self.before(segment)
        logits, confidence = np.zeros((len(samples), 4)), np.full(len(samples), 0.999)
        return SegmentRun(samples, logits.astype(np.float32), confidence.astype(np.float32))


class Served:
    """A runtime whose one lane is busy while ``held`` is entered."""

    def __init__(
        self, bundle: Path, calibration: Calibration, costs: CostModel, clock: Clock, leaving: bool
    ) -> None:
        self.clock = clock
        self.network = Sure()
        self.running = Held(self.network, 0)
        self.energy = Budget()
        self.residency = Leaving()
        self.model = build_model(
            bundle,
            costs,
            network=self.network,
            calibration=calibration,
            residency=self.residency if leaving else ALWAYS_RESIDENT,
        )
        self.runtime = build_runtime(
            [bundle], lambda _: self.model, energy=self.energy, max_backlog=1e-9
        )
        self.residency.backlog = self.runtime.backlog_seconds

    def submit(self, bounds: Bounds | None = None, **options: Any) -> Future[Result]:
        sample = options.pop("sample", SAMPLE)
        arrived = self.clock.now
        bounds = bounds or Bounds()
        return self.runtime.submit("tiny", sample, bounds, Options(**options), arrived).future

    def fill_the_lane(self) -> Future[Result]:
        future = self.submit()
        self.running.wait_until_running()
        return future


@pytest.fixture
def served(
    tiny_bundle: Path,
    make_calibration: Callable[..., Calibration],
    make_costs: Callable[..., CostModel],
    clock: Clock,
    request: pytest.FixtureRequest,
) -> Iterator[Served]:
    """Its segments may leave memory where the parameter is true."""
    costs, calibration = make_costs(0.01, 0.01, 0.01, watts=4.0), make_calibration(0.6, 0.8, 0.9)
    leaving = getattr(request, "param", False)
    served = Served(tiny_bundle, calibration, costs, clock, leaving)
    yield served
    served.runtime.close()


def count_plans(served: Served, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The prices of all plans that are made from now on."""
    prices: list[float] = []
    plan = served.model.plans.plan

    def counting(*arguments: Any, **named: Any) -> Plan:
        made = plan(*arguments, **named)
        prices.append(made.price)
        return made

    monkeypatch.setattr(served.model.plans, "plan", counting)
    return prices


def test_no_request_is_checked_before_the_one_that_passed_is_booked(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[object] = []

    def submit() -> None:
        try:
            outcomes.append(served.submit())
        except DelenError as error:
            outcomes.append(type(error))

    other = threading.Thread(target=submit)
    plan = served.model.plans.plan

    def plan_while_another_comes(*arguments: Any, **named: Any) -> Plan:
        if other.ident is None:
            other.start()
            other.join(0.2)  # it is over before what follows, or has to wait for it
        return plan(*arguments, **named)

    with served.running:
        served.fill_the_lane()
        monkeypatch.setattr(served.model.plans, "plan", plan_while_another_comes)
        submit()
        other.join(PATIENCE)
        assert outcomes[1:] == [Overloaded]
        assert isinstance(outcomes[0], Future)
    assert served.energy.refusals == {"overloaded": 1}


@pytest.mark.parametrize(
    ("bounds", "options", "joules", "prices"),
    [
        (Bounds(), {}, inf, [0.0]),
        (Bounds(max_latency=1.0, min_accuracy=0.6), {}, inf, [0.0]),
        (Bounds(max_latency=1e-6), {}, inf, [0.0]),
        (Bounds(max_latency=1e-6), {"on_infeasible": "best_effort"}, inf, [0.0]),
        (Bounds(), {}, 0.05, [0.0, inf]),
    ],
    ids=["free", "bounds", "infeasible", "best effort", "short of energy"],
)
def test_a_request_is_planned_once_unless_its_energy_is_short(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    bounds: Bounds,
    options: dict[str, Any],
    joules: float,
    prices: list[float],
) -> None:
    served.energy.left = joules
    made = count_plans(served, monkeypatch)
    try:
        served.submit(bounds, **options).result(PATIENCE)
    except InfeasibleBound:
        assert bounds.max_latency == 1e-6
    assert made == prices


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda served: served.runtime.start_draining(), Draining),
        (lambda served: served.runtime.unload("tiny"), ModelLoading),
        (lambda served: setattr(served.energy, "left", 0.0), BudgetExhausted),
        (lambda served: served.runtime.close(), Draining),
    ],
    ids=["draining", "unloaded", "budget", "closed"],
)
def test_a_refusal_is_counted_once(
    served: Served, change: Callable[[Served], None], error: type[DelenError]
) -> None:
    change(served)
    with pytest.raises(error):
        served.submit()
    assert served.energy.refusals == {error.code: 1}
    assert (served.residency.held, served.runtime.jobs("tiny")) == (0, 0)


def test_a_wrong_input_is_refused_and_counted(served: Served) -> None:
    with pytest.raises(InvalidInput) as refused:
        served.submit(sample=SAMPLE.astype(np.float32))
    assert refused.value.field == "input"
    assert served.energy.refusals == {"invalid_input": 1}


@pytest.mark.parametrize("served", [True], indirect=True)
def test_a_request_waits_for_a_segment_that_is_leaving_without_the_lock(served: Served) -> None:
    served.energy.left, served.residency.leaves = 1.0, True
    assert served.submit(Bounds(max_latency=3.0)).result(PATIENCE).reason == "final"
    assert served.residency.waited == [pytest.approx(3.0)]
    assert served.runtime.drain(PATIENCE)
    assert served.residency.held == 0
    assert served.energy.left == 1.0
    assert served.residency.uses == [2], "one request is one use, however long it waited"
    assert served.energy.admitted == 1


@pytest.mark.parametrize("served", [True], indirect=True)
def test_a_refusal_for_energy_keeps_no_segment(served: Served) -> None:
    served.energy.left = 0.0
    with pytest.raises(BudgetExhausted):
        served.submit()
    assert served.residency.held == 0


@pytest.mark.parametrize("served", [True], indirect=True)
def test_only_the_segments_of_a_cheaper_plan_are_kept(served: Served) -> None:
    served.energy.left = 0.05
    with served.running:
        served.fill_the_lane()
        assert served.residency.held == 1


def test_a_new_floor_is_certified_without_the_lock(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner, ended = served.model.planner, []
    plan = planner.plan

    def plan_while_another_comes(*arguments: Any, **named: Any) -> Plan:
        if not ended:
            other = threading.Thread(target=served.runtime.backlog_seconds)
            other.start()
            other.join(PATIENCE)
            ended.append(not other.is_alive())
        return plan(*arguments, **named)

    monkeypatch.setattr(planner, "plan", plan_while_another_comes)
    served.submit(Bounds(min_accuracy=0.65)).result(PATIENCE)
    assert ended == [True]


def obey(served: Served, **directive: Any) -> None:
    directives = served.runtime.directives
    directives.obey(Directive("here", time.monotonic(), 3600.0, **directive))


@pytest.mark.parametrize("served", [False, True], indirect=True)
def test_a_fleet_limits_the_requests_of_its_tenants(served: Served) -> None:
    obey(served, ceilings={"camera": Ceiling(1)})
    bounds = Bounds(max_latency=3.0)
    plans = []
    for tenant in ("camera", "door"):
        (job,) = served.runtime.submit_batch("tiny", [SAMPLE], bounds, Options(tenant=tenant))
        job.future.result(PATIENCE)
        plans.append((job.plan.exit, job.plan.limited_by))
    assert plans == [(1, "fleet"), (2, "depth")]
    assert served.runtime.directives.limited == 1
    assert served.runtime.preview("tiny", bounds, "camera").limited_by == "fleet"
    if served.residency.uses:
        assert served.residency.uses == [1, 2], "nothing is loaded that may not be used"


def test_a_batch_keeps_to_the_ceiling_to_its_end(served: Served) -> None:
    obey(served, ceilings={"default": Ceiling(0)})
    served.energy.left = 10.0
    jobs = served.runtime.submit_batch("tiny", [SAMPLE] * 5, Bounds(max_latency=5.0), Options())
    assert {job.future.result(PATIENCE).exit for job in jobs} == {0}
    assert {job.plan.exit for job in jobs} == {0}
    assert served.runtime.directives.limited == 5


def test_what_a_fleet_charges_for_a_joule_is_added_to_the_price(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    obey(served, prices={"default": Price(per_joule=0.25)})
    prices = count_plans(served, monkeypatch)
    served.submit().result(PATIENCE)
    served.submit(tenant="other").result(PATIENCE)
    assert prices == [0.25, 0.0]
    assert served.runtime.preview("tiny", Bounds()).price == 0.25


def test_what_a_fleet_charges_for_seconds_has_requests_end_earlier(served: Served) -> None:
    obey(served, prices={"default": Price(per_second=100.0)})
    result = served.submit(Bounds(max_latency=3.0)).result(PATIENCE)
    assert (result.exit, result.reason) == (0, "planned_exit")
