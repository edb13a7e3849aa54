"""The label-blind bound: against all stopping rules there are, and against the best schedules of
tiny instances that know every arrival and no label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import product

import numpy as np
import pytest

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds
from delen.simulate.bounds.fluid import fluid_bound
from delen.simulate.bounds.label_blind import LabelBlind, label_blind_tasks
from delen.simulate.bounds.least_costs import LeastCosts, Tasks
from delen.simulate.bounds.stopping import Frontier, StoppingRules
from delen.simulate.bounds.upper_bound import label_blind_bound, upper_bound
from delen.simulate.device import DeviceSettings
from delen.simulate.model import SimulatedModel
from delen.simulate.trace import Arrival, Trace
from policies.plan.planner import Planner, PlannerSettings

COPIES = 500
KINDS = [
    ((0.2, 0.3, 0.4), (0, 0, 1)),
    ((0.2, 0.9, 0.9), (0, 1, 1)),
    ((0.2, 0.3, 0.4), (0, 0, 0)),
    ((0.6, 0.4, 0.9), (1, 0, 1)),
    ((0.6, 0.9, 0.9), (0, 1, 1)),
    ((0.9, 0.9, 0.9), (1, 1, 1)),
    ((0.9, 0.9, 0.9), (1, 1, 0)),
]
"""Equally many samples each: the confidences at three exits, and which are right."""


def table(kinds: Sequence[tuple[Sequence[float], Sequence[int]]] = KINDS) -> Calibration:
    rows = [kind for kind in kinds for _ in range(COPIES)]
    confidence = np.array([row[0] for row in rows], np.float32)
    right = np.array([row[1] for row in rows], bool)
    return Calibration(confidence, right, (~right).astype(np.int32))


def planner(calibration: Calibration) -> Planner:
    return Planner(calibration, PlannerSettings())


def alone(*seconds: float) -> LeastCosts:
    columns = np.array(seconds)[:, None]
    return LeastCosts(columns, columns, (None,) * len(seconds))


def net(frontier: Frontier, price: float) -> float:
    """The most of accuracy less the price of its seconds."""
    return float(np.maximum(frontier.gain - price * frontier.seconds, 0).sum())


def every_rule(costs: Sequence[float]) -> Frontier:
    """The hull of all rules that go on at some confidences and stop at the others."""
    levels = (0.2, 0.3, 0.4, 0.6, 0.9)
    points = []
    chosen = list(product((False, True), repeat=len(levels)))
    for first, second in product(chosen, chosen):
        goes_on = (dict(zip(levels, first, strict=True)), dict(zip(levels, second, strict=True)))
        total = np.zeros(2)
        for confidence, right in KINDS:
            exit = 0
            while exit < 2 and goes_on[exit][confidence[exit]]:
                exit += 1
            total += (costs[exit], right[exit])
        points.append(total / len(KINDS))
    return Frontier.over(np.array(points))


@pytest.mark.parametrize("costs", [(1.0, 2.0, 3.0), (1.0, 1.2, 4.0), (0.5, 2.0, 2.2)])
def test_no_rule_is_better_where_the_last_confidence_says_all(costs: tuple[float, ...]) -> None:
    """But for its grid of prices, the frontier is that of all rules there are."""
    rules = StoppingRules(table()).within(costs)
    found = Frontier.over(np.column_stack((rules.seconds, rules.right.mean(axis=1))))
    best = every_rule(costs)
    for price in (0.0, 0.02, 0.1, 0.3, 0.5, 1.0, 3.0):
        assert net(best, price) - 0.004 <= net(found, price) <= net(best, price) + 1e-9


def test_a_frontier_is_concave_and_starts_at_nothing() -> None:
    points = np.array([[1.0, 0.5], [2.0, 0.4], [3.0, 0.9], [2.0, 0.7], [4.0, 0.9]])
    frontier = Frontier.over(points)
    assert frontier.seconds.tolist() == pytest.approx([1.0, 2.0])
    assert frontier.gain.tolist() == pytest.approx([0.5, 0.4])


def test_what_was_fitted_by_chance_gains_nothing() -> None:
    """Confidences that say nothing: fitted rules are no better than fixed depths in turn."""
    rng = np.random.default_rng(0)
    right = rng.random((300, 3)) < (0.5, 0.6, 0.7)
    blank = Calibration(
        rng.random((300, 3)).astype(np.float32), right, np.where(right, 0, [1, 2, 3]).astype("i4")
    )
    rules = StoppingRules(blank).within((1.0, 2.0, 3.0))
    accuracies = rules.right.mean(axis=1)
    fixed = Frontier.over(np.column_stack((rules.seconds, accuracies))[:3])
    found = Frontier.over(np.column_stack((rules.seconds, accuracies)))
    for price in (0.02, 0.1, 0.3):
        assert net(found, price) <= net(fixed, price) + 0.03


def test_samples_of_one_group_are_in_one_half(make_calibration: Callable[..., Calibration]) -> None:
    grouped = make_calibration(0.5, 0.7, samples=200, group_size=100)
    rules = StoppingRules(grouped).within((1.0, 2.0))
    assert rules.right.shape == (2 + 24, 200)
    assert (rules.right[0] == grouped.correct[:, 0]).all()


Instance = list[tuple[int, int]]
"""The release and the deadline of each request, in ticks."""

TWO = [((0.3, 0.9), (0, 1)), ((0.3, 0.9), (0, 0)), ((0.8, 0.9), (1, 1)), ((0.8, 0.9), (0, 1))]
"""Two exits: unsure samples are right at the second half the time, sure ones at the first."""


def best_blind_schedule(instance: Instance, ticks: tuple[int, int]) -> float:
    """The greatest mean of right answers in time of any schedule on one lane, one at a time, that
    knows all arrivals and the confidence of each first exit once that has run."""
    gain = {0.3: (0.0, 0.5), 0.8: (0.5, 1.0)}
    last = max(deadline for _, deadline in instance)

    @cache
    def value(now: int, states: tuple[float, ...]) -> float:
        """``states``: 0 new, -1 ended, else the confidence after the first exit."""
        if now >= last:
            return 0.0
        best = value(now + 1, states)
        for index, (release, deadline) in enumerate(instance):
            state = states[index]
            if state < 0 or release > now:
                continue
            end = now + ticks[0 if state == 0 else 1]
            if end > deadline:
                continue
            ways = [0.3, 0.8] if state == 0 else [-1.0]
            total = 0.0
            for way in ways:
                after = (*states[:index], way, *states[index + 1 :])
                gained = gain[way][0] if state == 0 else gain[state][1] - gain[state][0]
                total += (gained + value(end, after)) / len(ways)
            best = max(best, total)
        return best

    return value(0, (0.0,) * len(instance))


def fluid_of(instance: Instance, ticks: tuple[int, int]) -> float:
    network = LabelBlind(planner(table(TWO)), alone(*map(float, ticks)))
    rows = []
    for release, deadline in instance:
        frontier = network.offer(Bounds(max_latency=float(deadline - release))).frontier
        rows += [
            (release, deadline, seconds / gain, gain)
            for seconds, gain in zip(frontier.seconds, frontier.gain, strict=True)
        ]
    return fluid_bound(Tasks(*np.array(rows, float).reshape(-1, 4).T, len(instance))).value


def test_no_label_blind_schedule_of_a_tiny_instance_is_better() -> None:
    shares = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        ticks = (int(rng.integers(1, 3)), int(rng.integers(1, 4)))
        releases = rng.integers(0, 6, 4)
        instance = [(int(each), int(each + rng.integers(1, 9))) for each in releases]
        reached, bound = best_blind_schedule(instance, ticks), fluid_of(instance, ticks)
        assert reached <= bound + 0.001
        shares.append(reached / bound if bound else 1.0)
    assert 0.9 < np.mean(shares) <= 1.0


def test_a_floor_counts_only_as_it_is_certified(
    make_calibration: Callable[..., Calibration],
) -> None:
    calibration = make_calibration(0.6, 0.7, 0.8)
    network = LabelBlind(planner(calibration), alone(1.0, 1.0, 1.0))

    def accuracy(**bounds: float) -> float:
        return network.offer(Bounds(**bounds)).gain

    assert accuracy() > accuracy(min_accuracy=0.7) > 0.69
    assert accuracy(min_accuracy=0.7, max_latency=2.5) < 0.7
    assert accuracy(min_accuracy=0.99) == 0
    assert accuracy(max_latency=0.5) == 0


def test_an_energy_cap_ends_the_way(make_calibration: Callable[..., Calibration]) -> None:
    seconds = np.ones((3, 1))
    costs = LeastCosts(seconds, seconds, (1.0, 2.0, 3.0))
    network = LabelBlind(planner(make_calibration(0.6, 0.7, 0.8)), costs)
    shallow, deep = (network.offer(Bounds(max_energy=cap)).gain for cap in (1.5, 3.0))
    assert shallow == pytest.approx(0.6)
    assert deep >= 0.8


def test_gains_have_the_luck_of_the_draw(make_calibration: Callable[..., Calibration]) -> None:
    calibration = make_calibration(0.6, 0.7, 0.8)
    easy = np.flatnonzero(calibration.correct[:, 2])
    for drawn, expected in ((easy[:100], 1.0), (np.arange(calibration.samples), 0.8)):
        trace = Trace(tuple(Arrival(100.0 * row) for row in range(len(drawn))))
        tasks = label_blind_tasks(trace, drawn, [(planner(calibration), alone(1.0, 1.0, 1.0))])
        assert fluid_bound(tasks).effective_accuracy == pytest.approx(expected, abs=0.02)


def test_a_smaller_input_size_helps_where_it_is_cheaper(
    make_calibration: Callable[..., Calibration],
) -> None:
    large, small = planner(make_calibration(0.6, 0.8)), planner(make_calibration(0.5, 0.7))
    trace = Trace(tuple(Arrival(0.01 * n, bounds=Bounds(max_latency=5.0)) for n in range(20)))
    samples = np.arange(0, 4000, 200)
    sizes = [(large, alone(1.0, 1.0)), (small, alone(0.25, 0.25))]
    one, both = (
        fluid_bound(label_blind_tasks(trace, samples, sizes[:count])).value for count in (1, 2)
    )
    assert both > 1.5 * one


def test_it_is_between_the_deepest_exit_and_the_clairvoyant(
    make_model: Callable[..., SimulatedModel],
) -> None:
    models = {"m": make_model()}
    trace = Trace(tuple(Arrival(float(row)) for row in range(500)))
    bounds = [
        bound(trace, models, DeviceSettings(), 0) for bound in (label_blind_bound, upper_bound)
    ]
    assert 0.75 < bounds[0] <= bounds[1] + 1e-9


def test_an_empty_trace_has_a_bound_of_0(make_model: Callable[..., SimulatedModel]) -> None:
    assert label_blind_bound(Trace(()), {"m": make_model()}, DeviceSettings(), 0) == 0
