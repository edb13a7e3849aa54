from __future__ import annotations

import sys
from heapq import heapify, heappop, heappush

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.core.bounds import Bounds
from delen.simulate.apps import App, Mixed, draw
from delen.simulate.arrivals import Bursts
from delen.simulate.bounds.fluid import UpperBound, fluid_bound, most_work
from delen.simulate.bounds.least_costs import LeastCosts, Tasks, effective_seconds
from delen.simulate.device import SlowSpan
from delen.simulate.synthetic import synthetic
from delen.simulate.trace import Trace
from tests.exact_optimum import SmallTask, exact_optimum, slotted_fluid

Instance = tuple[list[SmallTask], list[list[int]]]


@st.composite
def instances(draw: st.DrawFn, most: int = 6) -> Instance:
    """Up to ``most`` requests for 2 or 3 segments, in batches of 1 or 2."""
    segments = draw(st.integers(2, 3))
    ticks = []
    for _ in range(segments):
        alone = draw(st.integers(1, 3))
        ticks.append([alone, alone + draw(st.integers(0, 2))])
    tasks = []
    for _ in range(draw(st.integers(1, most))):
        release = draw(st.integers(0, 8))
        window, exit = draw(st.integers(1, 12)), draw(st.integers(1, segments))
        tasks.append(SmallTask(release, release + window, exit))
    return tasks, ticks


def random_instance(seed: int) -> Instance:
    """Eight requests."""
    rng = np.random.default_rng(seed)
    ticks = [[int(t), int(t + rng.integers(0, 3))] for t in rng.integers(1, 4, rng.integers(2, 4))]
    tasks = [
        SmallTask(int(r), int(r + rng.integers(2, 14)), int(rng.integers(1, len(ticks) + 1)))
        for r in rng.integers(0, 10, 8)
    ]
    return tasks, ticks


def as_tasks(instance: Instance) -> Tasks:
    small, ticks = instance
    seconds = np.array(ticks, float)
    costs = LeastCosts(seconds, seconds, (None,) * len(ticks))
    known = [(t, costs.device_seconds(t.segments - 1, t.deadline - t.release)) for t in small]
    rows = [(t.release, t.deadline, s, 1.0) for t, s in known if np.isfinite(s)]
    columns = np.array(rows, float).reshape(-1, 4).T
    return Tasks(columns[0], columns[1], columns[2], columns[3], len(small))


def edf_value(instance: Instance, lanes: int = 1) -> int:
    """Answered in time by earliest deadline first, one request at a time, at segment ends.

    What can no longer be in time is given up.
    """
    small, ticks = instance
    free = [0] * lanes
    ready = [(task.release, index, 0) for index, task in enumerate(small)]
    heapify(ready)
    answered = 0
    while ready:
        now = max(min(free), ready[0][0])
        able = [entry for entry in ready if entry[0] <= now]
        entry = min(able, key=lambda e: (small[e[1]].deadline, e[1]))
        ready.remove(entry)
        heapify(ready)
        _, index, segment = entry
        task = small[index]
        if now + sum(ticks[k][0] for k in range(segment, task.segments)) > task.deadline:
            continue
        lane = free.index(min(free))
        free[lane] = now + ticks[segment][0]
        if segment + 1 == task.segments:
            answered += 1
        else:
            heappush(ready, (free[lane], index, segment + 1))
    return answered


@given(instances(), st.integers(1, 2))
def test_bound_exact_and_edf_come_in_this_order(instance: Instance, lanes: int) -> None:
    exact = exact_optimum(*instance, lanes=lanes)
    assert fluid_bound(as_tasks(instance), lanes).value >= exact - 1e-9
    assert exact >= edf_value(instance, lanes)


def test_the_bound_is_near_the_optimum_of_eight_requests() -> None:
    exact = bound = edf = 0.0
    for instance in map(random_instance, range(12)):
        optimum, above = exact_optimum(*instance), fluid_bound(as_tasks(instance)).value
        assert above >= optimum - 1e-9
        exact, bound, edf = exact + optimum, bound + above, edf + edf_value(instance)
    assert edf < exact <= bound < 1.25 * exact


@given(instances(most=12), st.integers(1, 2))
def test_it_is_the_optimum_of_the_fluid(instance: Instance, lanes: int) -> None:
    """By linear programming over slots on which every window starts and ends."""
    tasks = as_tasks(instance)
    bound = fluid_bound(tasks, lanes).value
    assert slotted_fluid(tasks, 1.0, lanes) == pytest.approx(bound, abs=1e-6)


@given(instances(most=12), st.sampled_from([1.5, 2.0, 3.0, 7.0, 50.0]))
def test_coarser_slots_are_a_relaxation(instance: Instance, slot: float) -> None:
    tasks = as_tasks(instance)
    bound = fluid_bound(tasks).value
    coarse, coarser = slotted_fluid(tasks, slot), slotted_fluid(tasks, 2 * slot)
    assert coarser + 1e-6 >= coarse >= bound - 1e-6


def draw_tasks(seed: int, count: int, load: float, limits: bool = False) -> Tasks:
    rng = np.random.default_rng(seed)
    seconds = rng.choice([0.5, 1.0, 2.0, 2.5], count)
    release = np.sort(rng.uniform(0, seconds.sum() / load, count))
    window = seconds * rng.uniform(1.0, 10.0, count)
    limit = rng.uniform(0.3, 1.0, count) if limits else np.ones(count)
    return Tasks(release, release + window, seconds, limit, count)


@pytest.mark.parametrize("limits", [False, True])
def test_windows_anywhere_and_limits_agree_with_fine_slots(limits: bool) -> None:
    tasks = draw_tasks(0, 60, 2.5, limits)
    bound = fluid_bound(tasks).value
    fine = slotted_fluid(tasks, 0.05)
    assert bound - 1e-6 <= fine <= 1.03 * bound
    assert bound < 0.97 * tasks.limit.sum()


def test_the_order_of_tasks_says_nothing() -> None:
    tasks = draw_tasks(1, 200, 1.5)
    order = np.random.default_rng(2).permutation(200)
    mixed = Tasks(
        *(a[order] for a in (tasks.release, tasks.deadline, tasks.seconds)), tasks.limit, 200
    )
    assert fluid_bound(mixed).value == pytest.approx(fluid_bound(tasks).value)


def test_without_a_wait_everything_is_answered() -> None:
    tasks = draw_tasks(0, 500, 0.05)
    loose = Tasks(tasks.release, tasks.deadline + 100.0, tasks.seconds, tasks.limit, 600)
    assert fluid_bound(loose) == UpperBound(500.0, 600)
    assert fluid_bound(loose).effective_accuracy == pytest.approx(500 / 600)
    endless = Tasks(tasks.release, np.full(500, np.inf), tasks.seconds, tasks.limit, 500)
    assert fluid_bound(endless).value == 500


def test_nothing_to_do() -> None:
    none = np.empty(0)
    assert fluid_bound(Tasks(none, none, none, none, 0)) == UpperBound(0.0, 0)
    assert fluid_bound(Tasks(none, none, none, none, 0)).effective_accuracy == 0.0
    assert fluid_bound(Tasks(none, none, none, none, 5)) == UpperBound(0.0, 5)
    assert slotted_fluid(Tasks(none, none, none, none, 0), 1.0) == 0.0
    assert exact_optimum([SmallTask(0, 1, 1)], [[2]]) == 0


def test_more_load_less_value_more_lanes_more_value() -> None:
    values = [fluid_bound(draw_tasks(3, 2000, load)).value for load in (0.5, 1.0, 1.5, 3.0)]
    assert values == sorted(values, reverse=True) and values[0] > 1.5 * values[-1]
    busy = draw_tasks(3, 2000, 3.0)
    lanes = [fluid_bound(busy, n).value for n in (1, 2, 4)]
    assert lanes == sorted(lanes) and lanes[2] > 1.5 * lanes[0]


def test_short_work_goes_first_where_not_all_fits() -> None:
    """Two seconds of the device: the short one whole, and half of the long one."""
    tasks = Tasks(np.zeros(2), np.full(2, 2.0), np.array([2.0, 1.0]), np.ones(2), 2)
    assert fluid_bound(tasks).value == pytest.approx(1.5)


def test_a_slow_device_does_less() -> None:
    """Unit work in 0 to 10 s; from 2 to 6 s at half speed that leaves 8 s."""
    count = 20
    tasks = Tasks(np.zeros(count), np.full(count, 10.0), np.ones(count), np.ones(count), count)
    assert fluid_bound(tasks).value == pytest.approx(10)
    assert fluid_bound(tasks, slow=[SlowSpan(2.0, 6.0, 2.0)]).value == pytest.approx(8)
    two = [SlowSpan(8.0, 20.0, 4.0), SlowSpan(2.0, 6.0, 2.0)]
    assert fluid_bound(tasks, lanes=2, slow=two).value == pytest.approx(13)
    late = fluid_bound(tasks, slow=[SlowSpan(2.0, 6.0, 2.0)], longest=1.0)
    assert late.value == pytest.approx(8.5)
    assert fluid_bound(tasks, slow=[SlowSpan(2.0, 6.0, 2.0)], longest=9.0).value == pytest.approx(
        10
    )
    # what began in the first span may last 3 s into the second
    meeting = [SlowSpan(0.0, 4.0, 3.0), SlowSpan(4.0, 8.0, 4.0)]
    value = fluid_bound(tasks, slow=meeting, longest=1.0).value
    assert value == pytest.approx(1 + 3 / 3 + 3 + 1 / 4 + 2)


@pytest.mark.parametrize("load", [0.8, 1.5])
def test_fewer_classes_only_raise_it(load: float) -> None:
    rng = np.random.default_rng(5)
    tasks = draw_tasks(4, 1000, load)
    varied = Tasks(
        tasks.release, tasks.deadline, tasks.seconds * rng.uniform(0.8, 1, 1000), tasks.limit, 1000
    )
    exact = fluid_bound(varied, classes=1000).value
    few = [fluid_bound(varied, classes=classes).value for classes in (64, 8, 1)]
    assert exact <= few[0] <= few[1] <= few[2]
    assert few[0] <= 1.01 * exact


def test_earliest_deadline_does_the_most_work() -> None:
    release, deadline = np.array([0.0, 1.0, 1.0]), np.array([10.0, 2.0, 4.0])
    assert most_work(release, deadline, np.array([3.0, 1.0, 1.0])) == 5.0
    assert most_work(release, np.array([3.0, 2.0, 2.0]), np.array([3.0, 1.0, 1.0])) == 3.0
    assert most_work(release, release, np.ones(3)) == 0.0


def play(tasks: Tasks, factors: np.ndarray, rng: np.random.Generator, cut: bool) -> int:
    """Answered in time by earliest deadline first on one lane, with noise on every run.

    ``cut`` ends a run at its deadline; else it runs on in vain.
    """
    now, answered, index = 0.0, 0, 0
    waiting: list[tuple[float, float]] = []
    while index < len(tasks.release) or waiting:
        if not waiting:
            now = max(now, float(tasks.release[index]))
        while index < len(tasks.release) and tasks.release[index] <= now:
            heappush(waiting, (float(tasks.deadline[index]), float(tasks.seconds[index])))
            index += 1
        deadline, seconds = heappop(waiting)
        end = now + seconds * float(rng.choice(factors))
        if now >= deadline:
            continue
        answered += end <= deadline
        now = min(end, deadline) if cut else end
    return answered


@pytest.mark.parametrize(
    "factors",
    [np.array([0.5] * 9 + [5.5]), np.array([0.7, 0.8, 0.9, 1.6]), np.array([1.0])],
    ids=["heavy", "skewed", "none"],
)
@pytest.mark.parametrize("cut", [False, True])
def test_noise_does_not_beat_it(factors: np.ndarray, cut: bool) -> None:
    """In the mean over draws; windows are from too short to long, and the load is 1.5."""
    rng = np.random.default_rng(0)
    shortest, busy = float(factors.min()), effective_seconds(factors)
    drawn = draw_tasks(6, 400, 1.5)
    window = (drawn.deadline - drawn.release) * rng.uniform(0.3, 1.0, 400)
    limit = np.where(
        window < shortest * drawn.seconds, 0.0, np.minimum(1, window / (busy * drawn.seconds))
    )
    deadline = drawn.release + window
    tasks = Tasks(drawn.release, deadline, busy * drawn.seconds, limit, 400)
    played = Tasks(drawn.release, deadline, drawn.seconds, drawn.limit, 400)
    values = [play(played, factors, rng, cut) for _ in range(30)]
    assert np.mean(values) <= fluid_bound(tasks).value


def test_heavy_noise_can_reach_it() -> None:
    """Windows that only lucky runs keep, one after the other, each cut off at its end."""
    factors = np.array([0.5] * 9 + [5.5])
    count = 2000
    release = 0.5 * np.arange(count)
    seconds = np.full(count, effective_seconds(factors))
    limit = np.minimum(1, 0.5 / seconds)
    bound = fluid_bound(Tasks(release, release + 0.5, seconds, limit, count))
    played = Tasks(release, release + 0.5, np.ones(count), np.ones(count), count)
    reached = play(played, factors, np.random.default_rng(0), cut=True)
    assert bound.effective_accuracy == pytest.approx(0.9)
    assert reached / count == pytest.approx(0.9, abs=0.03)


def test_twenty_thousand_requests_of_apps_with_their_bounds() -> None:
    table = synthetic((0.5, 0.7, 0.8), 5000, seed=0)
    seconds = np.tile(np.linspace(0.01, 0.04, 8), (3, 1))
    costs = LeastCosts(seconds, seconds, (0.1, 0.2, 0.3))
    mix = (
        Mixed(1, Bounds(max_latency=0.05)),
        Mixed(1, Bounds(max_energy=0.25)),
        Mixed(1, Bounds()),
    )
    shares = []
    for rate in (20.0, 100.0, 200.0):
        trace = Trace(tuple(draw([App("a", Bursts(rate), mix)], 20_000 / rate, seed=0)))
        samples = np.random.default_rng(0).integers(table.samples, size=len(trace))
        tasks = Tasks.of(trace, samples, [(table, costs)])
        shares.append(fluid_bound(tasks).effective_accuracy)
        assert shares[-1] <= len(tasks.release) / len(trace)
    oracle = table.correct.any(axis=1).mean()
    assert oracle > shares[0] > shares[1] > shares[2] > 0.1


def test_what_makes_no_sense_is_refused() -> None:
    tasks = draw_tasks(0, 5, 1.0)
    for lanes, classes in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            fluid_bound(tasks, lanes, classes=classes)
    for span in ((0.0, np.inf, 2.0), (0.0, 1.0, np.inf), (0.0, np.nan, 2.0), (1.0, 1.0, 2.0)):
        with pytest.raises(ValueError, match="finite"):
            SlowSpan(*span)
    with pytest.raises(ValueError, match="overlap at 2"):
        fluid_bound(tasks, slow=[SlowSpan(0.0, 3.0, 2.0), SlowSpan(2.0, 4.0, 2.0)])
    for start, end, factor in ((-1.0, 1.0, 2.0), (2.0, 1.0, 2.0), (0.0, 1.0, 0.5)):
        with pytest.raises(ValueError, match="slower by a factor"):
            SlowSpan(start, end, factor)
    with pytest.raises(ValueError, match="segment 0 must ascend"):
        exact_optimum([SmallTask(0, 9, 1)], [[3, 2]])


def test_the_bound_needs_no_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert fluid_bound(draw_tasks(0, 50, 1.5)).value > 0
