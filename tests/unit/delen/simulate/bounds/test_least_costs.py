from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds
from delen.profile.cost_model import CostModel
from delen.profile.profile import Quantiles
from delen.simulate.bounds.least_costs import LeastCosts, Tasks, effective_seconds
from delen.simulate.trace import Arrival, Trace

RIGHT = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
TABLE = Calibration(np.full((4, 3), 0.5, np.float32), RIGHT, (~RIGHT).astype(np.int32))
"""Sample 0 is right from exit 0 on, 1 at exit 1 alone, 2 at exit 2, 3 never."""

SECONDS = np.linspace([2.0, 1.0, 3.0], [4.0, 4.0, 3.0], 4, axis=1)
COSTS = LeastCosts(SECONDS, SECONDS, (1.0, 2.0, 3.0))
"""Segments that take one sample 2, 1 and 3 s, and a batch of four 4, 4 and 3 s."""


def alone(*seconds: float, answer: float = 0.0) -> LeastCosts:
    """Segments that run one sample at a time, of unknown energy."""
    table = np.array(seconds)[:, None]
    return LeastCosts(table, table, (None,) * len(seconds), answer)


def tasks(*arrivals: Arrival, samples: Sequence[int], costs: LeastCosts = COSTS) -> Tasks:
    return Tasks.of(Trace(arrivals), np.array(samples), [(TABLE, costs)])


def test_a_sample_takes_its_share_of_the_best_batch() -> None:
    assert [COSTS.device_seconds(exit) for exit in range(3)] == pytest.approx([1.0, 2.0, 2.75])


def test_batches_must_fit_the_window() -> None:
    """Segments alone take 2, 1 and 3 s; what is left of the window may go into one batch."""
    assert COSTS.elapsed(1) == 3.0
    assert COSTS.device_seconds(1, 2.9) == np.inf
    assert COSTS.device_seconds(1, 3.0) == pytest.approx(2.0 + 1.0)
    assert COSTS.device_seconds(1, 3 + 2 / 3) == pytest.approx((2 + 2 / 3) / 2 + 1.0)
    assert COSTS.device_seconds(1, 5.0) == pytest.approx(2.0)
    windows = np.linspace(3.0, 8.0, 60)
    least = [COSTS.device_seconds(2, window) for window in windows if window >= 6]
    assert least == sorted(least, reverse=True)


def test_the_answer_takes_time_but_not_the_device() -> None:
    late = alone(2.0, answer=0.5)
    assert (late.elapsed(0), late.device_seconds(0)) == (2.5, 2.0)
    (deadline,) = tasks(
        Arrival(1.0, bounds=Bounds(max_latency=4.0)),
        samples=[0],
        costs=alone(2.0, 2.0, 2.0, answer=0.5),
    ).deadline
    assert deadline == 4.5


def test_the_first_right_exit_counts() -> None:
    made = tasks(*(Arrival(float(k)) for k in range(4)), samples=[0, 1, 2, 3])
    assert made.requests == 4
    assert made.seconds == pytest.approx([1.0, 2.0, 2.75])
    assert made.release == pytest.approx([0.0, 1.0, 2.0])
    assert (made.deadline == np.inf).all() and (made.limit == 1).all()


def test_caps_that_no_right_exit_keeps_leave_no_task() -> None:
    frugal, quick = Bounds(max_energy=1.5), Bounds(max_latency=2.5)
    assert len(tasks(Arrival(0.0, bounds=frugal), samples=[0]).release) == 1
    assert len(tasks(Arrival(0.0, bounds=frugal), samples=[1]).release) == 0
    assert len(tasks(Arrival(0.0, bounds=quick), samples=[0]).release) == 1
    assert len(tasks(Arrival(0.0, bounds=quick), samples=[1]).release) == 0
    kept = tasks(Arrival(0.0, bounds=frugal), samples=[2], costs=alone(1.0, 1.0, 1.0))
    assert len(kept.release) == 1


def test_a_floor_asks_nothing_of_the_bound() -> None:
    floor = Bounds(min_accuracy=1.0)
    assert len(tasks(Arrival(0.0, bounds=floor), samples=[2]).release) == 1


def test_noise_lets_a_short_window_succeed_sometimes() -> None:
    noisy = LeastCosts(np.full((3, 1), 1.6), np.full((3, 1), 1.0), (None,) * 3)
    assert noisy.elapsed(0) == 1.0
    assert noisy.device_seconds(0) == pytest.approx(1.6)
    made = tasks(
        Arrival(0.0, bounds=Bounds(max_latency=0.9)),
        Arrival(0.0, bounds=Bounds(max_latency=1.2)),
        Arrival(0.0, bounds=Bounds(max_latency=1.7)),
        samples=[0, 0, 0],
        costs=noisy,
    )
    assert made.limit == pytest.approx([0.75, 1.0])
    assert made.seconds == pytest.approx([1.6, 1.6])


def test_the_effective_seconds_of_noise() -> None:
    rng = np.random.default_rng(0)
    assert effective_seconds(np.array([2.0])) == 2.0
    assert effective_seconds(np.full(1000, 0.01)) == 0.01
    even = rng.uniform(0.5, 1.5, 100_000)
    assert effective_seconds(even) == pytest.approx(even.mean())
    assert effective_seconds(rng.gamma(9.0, 1 / 9, 100_000)) == pytest.approx(1.0, abs=0.02)
    assert effective_seconds(np.array([0.5] * 9 + [5.5])) == pytest.approx(0.5 / 0.9)


def test_from_a_profile(make_costs: Callable[..., CostModel]) -> None:
    costs = make_costs(0.01, 0.02, energy=(0.1, 0.2), growth=0.5, spread=0.1, answer=0.001)
    least = LeastCosts.of(costs, max_batch=4)
    assert least.seconds[1] == pytest.approx([0.02, 0.03, 0.04, 0.05])
    assert (least.least == least.seconds).all()
    assert least.energy == pytest.approx((0.1, 0.3))
    assert least.answer == pytest.approx(0.001)
    assert least.longest == pytest.approx(0.05)
    assert LeastCosts.of(costs).seconds.shape == (2, 8)
    assert LeastCosts.of(make_costs(0.01, 0.02)).energy == (None, None)


def test_from_a_profile_with_noise(make_costs: Callable[..., CostModel]) -> None:
    def durations(quantiles: Quantiles) -> NDArray[np.float64]:
        return quantiles.p50 * np.array([0.8, 1.0, 1.5])

    costs = make_costs(0.01, 0.02, energy=(0.1, 0.2), answer=0.001)
    least = LeastCosts.of(costs, 2, durations, overhead=0.01, network=0.002)
    assert least.least[0] == pytest.approx([0.018, 0.022])
    assert least.seconds[0] == pytest.approx([0.021, 0.0265])
    assert least.longest == pytest.approx(0.01 + 1.5 * 0.03)
    assert least.beside == pytest.approx(0.0048)
    assert least.energy == pytest.approx((0.1, 0.3))


def test_tasks_of_several_models_join() -> None:
    one = tasks(Arrival(0.0), Arrival(2.0), samples=[0, 3])
    both = Tasks.join([one, tasks(Arrival(1.0), samples=[1])])
    assert both.requests == 3
    assert both.release.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"seconds": np.zeros((2, 1))}, "above 0"),
        ({"seconds": np.ones(2)}, "segments, batch sizes"),
        ({"energy": (None,)}, "1 exits, not 2"),
        ({"least": np.full((2, 1), 1.1)}, "no more"),
        ({"least": np.ones((1, 1))}, "seconds' shape"),
        ({"least": np.zeros((2, 1))}, "shortest"),
        ({"answer": -1.0}, "answer"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, object], named: str) -> None:
    ones = np.ones((2, 1))
    whole = {"seconds": ones, "least": ones, "energy": (None, None)} | given
    with pytest.raises(ValueError, match=named):
        LeastCosts(**whole)  # type: ignore[arg-type]
