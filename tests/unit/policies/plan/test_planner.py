from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.bundle.calibration import THRESHOLDS, Calibration
from delen.core.bounds import Bounds
from delen.errors import Nearest
from delen.profile.cost_model import CostModel
from policies.plan.planner import DEPARTED, NOT_HELD_OUT, Planner, PlannerSettings

MakeCosts = Callable[..., CostModel]

NANO_ACCURACY = (0.4354, 0.6803, 0.7675, 0.7657)
NANO_SEGMENT_SECONDS = (0.0117, 0.0136, 0.0197, 0.0170)
NANO_SEGMENT_JOULES = (0.04599, 0.05332, 0.07744, 0.06680)
"""ResNet-50 on a Jetson Nano (Dělen): exit 3 costs more than exit 2 and is no better."""


@pytest.fixture(scope="module")
def nano(make_calibration: Callable[..., Calibration]) -> Planner:
    return Planner(make_calibration(*NANO_ACCURACY, samples=10_000), PlannerSettings())


@pytest.fixture(scope="module")
def costs(make_costs: MakeCosts) -> CostModel:
    return make_costs(*NANO_SEGMENT_SECONDS, energy=NANO_SEGMENT_JOULES, answer=0.0003)


@pytest.fixture(scope="module")
def unmetered(make_costs: MakeCosts) -> CostModel:
    """The same without an energy source."""
    return make_costs(*NANO_SEGMENT_SECONDS, answer=0.0003)


def test_points_show_every_exit_and_which_are_dominated(nano: Planner, costs: CostModel) -> None:
    points = nano.points(costs)
    assert [point.exit for point in points] == [0, 1, 2, 3]
    assert [point.dominated for point in points] == [False, False, False, True]
    assert [point.accuracy for point in points] == pytest.approx(NANO_ACCURACY, abs=1e-4)
    assert points[2].latency == pytest.approx(0.0453)
    assert points[3].energy == pytest.approx(0.24355, abs=1e-6)


maybe_latency = st.none() | st.floats(0.001, 0.2)
maybe_floor = st.none() | st.floats(0, 1)
maybe_energy = st.none() | st.floats(0.001, 0.5)
delays = st.sampled_from([0.0, 0.004, 0.05])


@pytest.mark.parametrize("deepest", [0, 1, 2])
def test_a_request_without_bounds_is_promised_what_memory_leaves(
    nano: Planner, costs: CostModel, deepest: int
) -> None:
    waits = [0.0 if exit <= deepest else inf for exit in range(4)]
    plan = nano.plan(Bounds(), costs, waits=waits)
    assert plan.exit == deepest
    assert plan.accuracy is not None
    assert plan.accuracy <= nano.accuracies[deepest]
    assert plan.accuracy == pytest.approx(nano.accuracies[deepest], abs=0.006)


@given(maybe_latency, maybe_floor, maybe_energy, delays)
def test_a_feasible_plan_keeps_every_bound(
    nano: Planner,
    costs: CostModel,
    latency: float | None,
    floor: float | None,
    energy: float | None,
    delay: float,
) -> None:
    plan = nano.plan(
        Bounds(max_latency=latency, min_accuracy=floor, max_energy=energy), costs, delay
    )
    assert plan.exit in (0, 1, 2)
    assert len(plan.cases) == plan.exit + 1
    assert (plan.infeasible is None) == (plan.nearest is None)
    if plan.infeasible is not None:
        assert plan.guarantee is None or floor is not None
        return
    assert latency is None or plan.latency <= latency
    assert energy is None or (plan.energy is not None and plan.energy <= energy)
    if floor is not None:
        assert plan.accuracy >= floor
        assert plan.guarantee == 0.95
        assert plan.threshold is not None
    else:
        assert plan.guarantee is None


@given(maybe_latency, maybe_floor, maybe_energy, delays)
def test_the_nearest_bounds_are_feasible(
    nano: Planner,
    costs: CostModel,
    latency: float | None,
    floor: float | None,
    energy: float | None,
    delay: float,
) -> None:
    plan = nano.plan(
        Bounds(max_latency=latency, min_accuracy=floor, max_energy=energy), costs, delay
    )
    if plan.nearest is None:
        return
    near = plan.nearest
    retry = Bounds(
        max_latency=near.max_latency, min_accuracy=near.min_accuracy, max_energy=near.max_energy
    )
    assert nano.plan(retry, costs, delay).infeasible is None
    for asked, offered in ((latency, near.max_latency), (energy, near.max_energy)):
        assert (asked is None) == (offered is None)
        assert asked is None or offered is None or offered >= asked
    assert (floor is None) == (near.min_accuracy is None)
    assert floor is None or near.min_accuracy is None or near.min_accuracy <= floor


@given(maybe_latency, maybe_energy)
def test_a_best_effort_stays_within_the_caps_that_can_be_kept(
    nano: Planner, costs: CostModel, latency: float | None, energy: float | None
) -> None:
    plan = nano.plan(Bounds(max_latency=latency, min_accuracy=0.99, max_energy=energy), costs)
    assert plan.infeasible is not None
    assert plan.threshold is None
    first = nano.points(costs)[0]
    assert first.energy is not None
    if latency is not None and latency >= first.latency:
        assert plan.latency <= latency
    if energy is not None and energy >= first.energy:
        assert plan.energy is not None
        assert plan.energy <= energy
    if latency is not None and latency < first.latency:
        assert plan.exit == 0


@pytest.mark.parametrize(
    ("latency", "energy", "exit", "limited_by"),
    [
        (0.012, None, 0, "latency"),
        (0.026, None, 1, "latency"),
        (0.046, None, 2, "depth"),
        (0.900, None, 2, "depth"),
        (None, 0.046, 0, "energy"),
        (None, 0.100, 1, "energy"),
        (None, 0.900, 2, "depth"),
        (0.026, 0.900, 1, "latency"),
        (0.900, 0.100, 1, "energy"),
        (0.026, 0.046, 0, "energy"),
        (0.012, 0.100, 0, "latency"),
    ],
)
def test_caps_alone_buy_the_deepest_useful_exit_with_no_threshold(
    nano: Planner,
    costs: CostModel,
    latency: float | None,
    energy: float | None,
    exit: int,
    limited_by: str,
) -> None:
    plan = nano.plan(Bounds(max_latency=latency, max_energy=energy), costs)
    assert (plan.exit, plan.limited_by, plan.infeasible) == (exit, limited_by, None)
    assert plan.threshold is None
    assert plan.accuracy == pytest.approx(NANO_ACCURACY[exit], abs=1e-4)
    assert plan.expected_energy == plan.energy


def test_waiting_before_the_first_segment_costs_depth(nano: Planner, costs: CostModel) -> None:
    bounds = Bounds(max_latency=0.05)
    assert nano.plan(bounds, costs).exit == 2
    assert nano.plan(bounds, costs, 0.02).exit == 1
    assert nano.plan(bounds, costs, 0.03).exit == 0
    assert nano.plan(bounds, costs, 0.045).infeasible is not None
    assert nano.plan(bounds, costs, 0.02).latency == pytest.approx(0.0456)


def test_a_floor_alone_takes_the_least_energy_of_what_is_certified(
    nano: Planner, costs: CostModel
) -> None:
    plan = nano.plan(Bounds(min_accuracy=0.7), costs)
    assert plan.threshold is not None
    assert plan.expected_energy is not None
    assert plan.energy is not None
    assert plan.expected_energy < plan.energy
    energies = [point.energy or 0.0 for point in nano.points(costs)][:3]
    calibration = nano.calibration
    safer = [value for value in THRESHOLDS.tolist() if value >= plan.threshold]
    for threshold in safer:
        shares = calibration.exit_shares(threshold, 2)
        joules = sum(s * e for s, e in zip(shares, energies, strict=True))
        assert plan.expected_energy <= joules + 1e-12


def test_a_higher_floor_costs_more(nano: Planner, costs: CostModel) -> None:
    plans = [nano.plan(Bounds(min_accuracy=floor), costs) for floor in (0.5, 0.6, 0.7, 0.75)]
    joules = [plan.expected_energy or 0.0 for plan in plans]
    assert all(plan.infeasible is None for plan in plans)
    assert joules == sorted(joules)
    assert joules[0] < joules[-1]


def test_a_floor_beyond_the_caps_names_what_could_keep_it(nano: Planner, costs: CostModel) -> None:
    plan = nano.plan(Bounds(min_accuracy=0.7, max_latency=0.026), costs)
    assert plan.exit == 1
    assert plan.infeasible is not None
    assert "min_accuracy 0.7 cannot be guaranteed at level 0.95" in plan.infeasible
    assert "exit 2 could: it takes 45.3 ms" in plan.infeasible
    assert plan.nearest is not None
    assert plan.nearest.max_latency == 0.026
    assert plan.nearest.min_accuracy == pytest.approx(0.67, abs=0.01)


def test_no_bounds_lose_no_accuracy_beyond_the_tolerance(nano: Planner, costs: CostModel) -> None:
    plan = nano.plan(Bounds(), costs)
    assert (plan.exit, plan.limited_by, plan.guarantee) == (2, "depth", None)
    assert plan.threshold is not None
    assert plan.accuracy >= NANO_ACCURACY[2] - 0.005
    assert plan.expected_energy is not None
    assert plan.energy is not None
    assert plan.expected_energy < plan.energy


def test_every_refusal_names_its_bound_and_its_figures(nano: Planner, costs: CostModel) -> None:
    plan = nano.plan(Bounds(max_latency=0.005, max_energy=0.01), costs)
    assert plan.infeasible is not None
    assert "max_latency 5 ms is less than the 12 ms" in plan.infeasible
    assert "max_energy 10 mJ is less than the 46 mJ" in plan.infeasible
    assert plan.nearest == Nearest(
        pytest.approx(0.015, rel=0.01), None, pytest.approx(0.0483, rel=0.01)
    )


@pytest.mark.parametrize(
    ("latency", "floor"), list(product((None, 0.03, 0.001), (None, 0.5, 0.99)))
)
def test_a_cap_on_energy_that_nobody_measures_is_infeasible(
    nano: Planner, unmetered: CostModel, latency: float | None, floor: float | None
) -> None:
    plan = nano.plan(Bounds(max_latency=latency, min_accuracy=floor, max_energy=1.0), unmetered)
    assert plan.infeasible is not None
    assert "no energy source" in plan.infeasible
    assert plan.exit == 0
    assert plan.nearest is not None
    near = plan.nearest
    assert near.max_energy is None
    retry = Bounds(max_latency=near.max_latency, min_accuracy=near.min_accuracy)
    assert nano.plan(retry, unmetered).infeasible is None


def test_without_an_energy_source_other_bounds_are_planned_the_same(
    nano: Planner, costs: CostModel, unmetered: CostModel
) -> None:
    for bounds in (Bounds(), Bounds(max_latency=0.03), Bounds(min_accuracy=0.7)):
        known, unknown = nano.plan(bounds, costs), nano.plan(bounds, unmetered)
        assert (known.exit, known.threshold) == (unknown.exit, unknown.threshold)
        assert unknown.energy is unknown.expected_energy is None


def test_single_slow_moments_do_not_refuse_the_first_exit(
    nano: Planner, make_costs: MakeCosts
) -> None:
    """The belief is only corrected by what runs, so its spread must not refuse everything."""
    costs = make_costs(*NANO_SEGMENT_SECONDS, answer=0.0003)
    cap = Bounds(max_latency=1.2 * nano.points(costs)[0].latency)
    for _ in range(2):
        costs.learn(0, 1, 10 * NANO_SEGMENT_SECONDS[0])
    assert costs.latency(0, 0, 1) > 1.5 * NANO_SEGMENT_SECONDS[0]
    plan = nano.plan(cap, costs)
    assert (plan.exit, plan.infeasible) == (0, None)


def test_without_thresholds_floors_are_refused_and_accuracies_unknown(
    make_calibration: Callable[..., Calibration], costs: CostModel
) -> None:
    calibration = make_calibration(*NANO_ACCURACY, samples=1000)
    planner = Planner(calibration, PlannerSettings(), by_threshold=False)
    free = planner.plan(Bounds(), costs)
    assert (free.exit, free.threshold, free.accuracy, free.infeasible) == (2, None, None, None)
    assert free.cases[2].planned is None
    floor = planner.plan(Bounds(min_accuracy=0.5), costs)
    assert floor.infeasible is not None
    assert "does not stop by confidence thresholds" in floor.infeasible
    assert floor.nearest == Nearest()


@pytest.mark.parametrize(
    "bounds", [Bounds(), Bounds(min_accuracy=0.7), Bounds(min_accuracy=0.6, max_latency=0.03)]
)
def test_once_the_guarantee_is_lost_nothing_stops_early(
    nano: Planner, costs: CostModel, bounds: Bounds
) -> None:
    before, after = nano.plan(bounds, costs), nano.plan(bounds, costs, guaranteed=False)
    assert before.threshold is not None
    assert (after.threshold, after.guarantee, after.infeasible) == (None, None, None)
    assert after.exit == before.exit
    assert after.accuracy == nano.accuracies[after.exit]


@pytest.mark.parametrize("bounds", [Bounds(), Bounds(min_accuracy=0.7)])
def test_while_inputs_are_others_a_threshold_is_raised_and_promises_nothing(
    nano: Planner, costs: CostModel, bounds: Bounds
) -> None:
    before = nano.plan(bounds, costs)
    assert before.threshold is not None and before.threshold < 0.99
    for lowest, threshold in ((0.0, before.threshold), (0.99, 0.99), (inf, None)):
        others = nano.plan(bounds, costs, lowest=lowest)
        assert (others.threshold, others.guarantee) == (threshold, None)
        assert others.unguaranteed == (DEPARTED if bounds.min_accuracy else None)
        assert others.expected_energy is not None and before.expected_energy is not None
        assert others.expected_energy >= before.expected_energy


def test_what_could_never_be_kept_is_refused_without_a_guarantee_too(
    nano: Planner, costs: CostModel
) -> None:
    plan = nano.plan(Bounds(min_accuracy=0.99), costs, guaranteed=False)
    assert plan.infeasible is not None


def test_too_few_groups_for_a_floor_are_told_with_how_many_it_takes(
    make_calibration: Callable[..., Calibration], costs: CostModel
) -> None:
    table = make_calibration(0.8, 0.9, 0.97, 1.0, samples=4000, group_size=100)
    plan = Planner(table, PlannerSettings()).plan(Bounds(min_accuracy=0.95), costs)
    assert plan.infeasible is not None
    assert "40 calibration groups are too few: even without an error it takes 63" in plan.infeasible
    assert plan.nearest is not None and plan.nearest.min_accuracy is not None
    assert 0 < plan.nearest.min_accuracy < 0.95


def test_weights_that_may_have_seen_the_calibration_data_guarantee_no_floor(
    make_calibration: Callable[..., Calibration], costs: CostModel
) -> None:
    table = make_calibration(*NANO_ACCURACY, samples=10_000)
    known = Planner(table, PlannerSettings())
    unknown = Planner(table, PlannerSettings(), is_held_out=False)
    floor = Bounds(min_accuracy=0.65)
    before, after = known.plan(floor, costs), unknown.plan(floor, costs)
    assert (before.guarantee, before.unguaranteed) == (0.95, None)
    assert (after.guarantee, after.unguaranteed) == (None, NOT_HELD_OUT)
    assert (after.exit, after.threshold, after.infeasible) == (before.exit, before.threshold, None)
    assert unknown.plan(Bounds(), costs).threshold == known.plan(Bounds(), costs).threshold
    refused = unknown.plan(Bounds(min_accuracy=0.9999), costs)
    assert refused.infeasible is not None
    assert NOT_HELD_OUT in refused.infeasible


def test_too_few_samples_for_a_floor_are_told_with_how_many_it_takes(
    make_calibration: Callable[..., Calibration], costs: CostModel
) -> None:
    small = Planner(make_calibration(0.8, 0.9, 0.97, 0.99, samples=50), PlannerSettings())
    plan = small.plan(Bounds(min_accuracy=0.95), costs)
    assert plan.infeasible is not None
    assert (
        "50 calibration samples are too few: even without an error it takes 59" in plan.infeasible
    )
    middling = Planner(make_calibration(0.8, 0.9, 0.93, 0.96, samples=200), PlannerSettings())
    plan = middling.plan(Bounds(min_accuracy=0.95), costs)
    assert plan.infeasible is not None
    assert "exit 3 is right on 96.00% of the 200 calibration samples: some" in plan.infeasible
    hopeless = middling.plan(Bounds(min_accuracy=0.97), costs)
    assert hopeless.infeasible is not None
    assert "samples" not in hopeless.infeasible


def test_bounds_for_any_loss_promise_less(
    make_calibration: Callable[..., Calibration], costs: CostModel
) -> None:
    table = make_calibration(*NANO_ACCURACY, samples=1000)
    exact, general = (Planner(table, PlannerSettings(procedure=p)) for p in ("ltt", "ucb"))
    plans = [planner.plan(Bounds(min_accuracy=0.99), costs) for planner in (exact, general)]
    highest = [plan.nearest.min_accuracy for plan in plans if plan.nearest is not None]
    assert highest[0] is not None
    assert highest[1] is not None
    assert highest[1] < highest[0]
    kept = general.plan(Bounds(min_accuracy=highest[1]), costs)
    assert (kept.infeasible, kept.guarantee) == (None, 0.95)


def test_requests_without_bounds_may_keep_to_agreement(
    make_calibration: Callable[..., Calibration], costs: CostModel
) -> None:
    table = make_calibration(*NANO_ACCURACY, samples=10_000)
    settings = PlannerSettings(tolerance=0.02, lossless="agreement")
    plan = Planner(table, settings).plan(Bounds(), costs)
    assert plan.threshold is not None
    taken = table.exits_taken(plan.threshold, 2)
    given = table.predictions[range(table.samples), taken]
    assert (given != table.predictions[:, 2]).mean() < 0.02
    strict = PlannerSettings(tolerance=0.0, lossless="agreement")
    assert Planner(table, strict).plan(Bounds(), costs).threshold is None


prices = st.floats(0.0, 50.0) | st.just(inf)


@given(maybe_latency, maybe_energy, prices, prices)
def test_a_higher_price_never_buys_more_energy_and_never_breaks_a_cap(
    nano: Planner,
    costs: CostModel,
    latency: float | None,
    energy: float | None,
    price: float,
    higher: float,
) -> None:
    bounds = Bounds(max_latency=latency, max_energy=energy)
    free, low, high = (
        nano.plan(bounds, costs, price=each) for each in (0.0, *sorted((price, higher)))
    )
    assert high.expected_energy <= low.expected_energy <= free.expected_energy
    assert high.accuracy <= low.accuracy <= free.accuracy
    assert max(high.exit, low.exit) <= free.exit
    assert high.infeasible == free.infeasible
    for plan in (low, high):
        assert plan.frontier is free.frontier
        assert plan.frontier.most.energy == pytest.approx(free.expected_energy)
        chosen = (plan.exit, plan.threshold) != (free.exit, free.threshold)
        assert (plan.limited_by == "price") is chosen


def test_the_least_energy_stops_at_the_first_exit(nano: Planner, costs: CostModel) -> None:
    plan = nano.plan(Bounds(), costs, price=inf)
    assert (plan.exit, plan.threshold, plan.limited_by) == (0, None, "price")
    assert plan.expected_energy == plan.energy == pytest.approx(NANO_SEGMENT_JOULES[0])
    assert plan.latency == pytest.approx(NANO_SEGMENT_SECONDS[0] + 0.0003)
    assert plan.accuracy == plan.cases[0].planned
    assert plan.price == inf


def test_a_price_leaves_floors_alone(nano: Planner, costs: CostModel) -> None:
    bounds = Bounds(min_accuracy=0.7)
    free, dear = nano.plan(bounds, costs), nano.plan(bounds, costs, price=inf)
    assert (dear.exit, dear.threshold, dear.limited_by) == (free.exit, free.threshold, "depth")
    assert len(dear.frontier.choices) == 1
    assert dear.frontier.most.energy == dear.expected_energy


def test_what_answers_may_never_be_is_not_taken_to_save(
    make_calibration: Callable[..., Calibration], costs: CostModel
) -> None:
    table = make_calibration(*NANO_ACCURACY, samples=10_000)
    careful = Planner(table, PlannerSettings(least_accuracy=0.7))
    plan = careful.plan(Bounds(), costs, price=inf)
    assert plan.accuracy is not None
    assert 0.7 <= plan.accuracy < 0.72
    capped = careful.plan(Bounds(max_latency=0.012), costs, price=inf)
    assert (capped.exit, capped.limited_by) == (0, "latency")


def test_a_price_limits_depth_alone_where_nothing_may_stop_early(
    make_calibration: Callable[..., Calibration], nano: Planner, costs: CostModel
) -> None:
    table = make_calibration(*NANO_ACCURACY, samples=10_000)
    unwatched = Planner(table, PlannerSettings(), by_threshold=False)
    for plan in (
        unwatched.plan(Bounds(), costs, price=1.0),
        nano.plan(Bounds(), costs, guaranteed=False, price=1.0),
    ):
        assert (plan.exit, plan.threshold, plan.limited_by) == (2, None, "depth")
        assert [choice.threshold for choice in plan.frontier.choices] == [None, None, None]
    assert unwatched.plan(Bounds(), costs, price=2.0).exit == 1
    assert unwatched.plan(Bounds(), costs, price=inf).expected_energy is None


def test_without_energies_a_price_changes_nothing(nano: Planner, unmetered: CostModel) -> None:
    free, dear = nano.plan(Bounds(), unmetered), nano.plan(Bounds(), unmetered, price=inf)
    assert (dear.exit, dear.threshold, dear.limited_by) == (free.exit, free.threshold, "depth")
    assert dear.frontier.most.energy is None
