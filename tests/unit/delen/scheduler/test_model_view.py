from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from delen.bundle.calibration import Calibration
from delen.core.dispatch import Task
from delen.profile.cost_model import CostModel
from delen.profile.profile import HostCosts, Profile
from delen.scheduler.exit_forecast import ExitForecast
from delen.scheduler.model_view import ScheduledModel

MakeTask = Callable[..., Task]


def test_times_follow_the_slowdown_that_is_learnt(
    make_costs: Callable[..., CostModel], make_calibration: Callable[..., Calibration]
) -> None:
    costs = make_costs(0.01, 0.02, answer=0.005)
    view = ScheduledModel(costs, make_calibration(0.6, 0.7), 8)
    assert view.typical(0, 1, 1) == pytest.approx(0.03)
    assert view.latency_upper(0, 1, 1) == pytest.approx(0.035)
    for _ in range(200):
        costs.learn(0, 1, 0.02)
    assert view.typical(0, 1, 1) == pytest.approx(0.06, rel=0.01)


def test_what_is_kept_of_the_work_of_a_task_knows_no_slowdown(
    make_costs: Callable[..., CostModel],
    make_calibration: Callable[..., Calibration],
    make_task: MakeTask,
) -> None:
    """The slowdown is learnt between two of the questions that one answer is made of."""
    costs = make_costs(0.01, 0.01, 0.01)
    typical = costs.typical

    def while_it_learns(first: int, last: int, batch: int) -> float:
        costs.learn(0, 1, 0.05)
        return typical(first, last, batch)

    costs.typical = while_it_learns  # type: ignore[method-assign]
    view = ScheduledModel(costs, make_calibration(0.6, 0.7, 0.8), 8)
    for threshold in (None, 0.9):
        task = make_task(threshold=threshold)
        expected = view.expected(task) / costs.slowdown.mean
        other = ScheduledModel(make_costs(0.01, 0.01, 0.01), make_calibration(0.6, 0.7, 0.8), 8)
        assert expected == pytest.approx(other.expected(task))
        assert view.discount(0, 8) == pytest.approx(other.discount(0, 8))


def test_work_is_what_serving_takes_of_the_lane(
    make_costs: Callable[..., CostModel],
    make_calibration: Callable[..., Calibration],
    make_task: MakeTask,
) -> None:
    host = HostCosts(request=1.0, batch=0.003, task=0.001, answer=0.004)
    costs = make_costs(0.01, 0.01, 0.01, growth=1.0, host=host)
    view = ScheduledModel(costs, make_calibration(0.6, 0.7, 0.8), 8)
    step, answer = 0.014, 0.004
    assert view.expected(make_task()) == pytest.approx(3 * step + answer)
    first = view.mandatory(make_task(), view.expected(make_task()))
    assert first == pytest.approx(step + answer)
    assert view.discount(0, 8) == pytest.approx((0.08 + 0.003 + 8 * 0.001) / (8 * step))


def test_energy_is_unknown_where_no_account_knows_it(view: ScheduledModel) -> None:
    assert view.joules(0, 1, 1) is None


def test_a_task_needs_its_first_answer_or_all_that_its_floor_needs(
    view: ScheduledModel, make_task: MakeTask
) -> None:
    plain, floor, begun = make_task(), make_task(floor=True), make_task(segment=1, exit=0)
    assert view.expected(plain) == pytest.approx(0.03)
    assert view.mandatory(plain, 0.03) == pytest.approx(0.01)
    assert view.mandatory(floor, 0.03) == pytest.approx(0.03)
    assert view.mandatory(begun, 0.02) == 0.0


def test_samples_that_are_confident_early_make_the_expected_work_less(
    view: ScheduledModel, make_task: MakeTask
) -> None:
    loose = view.expected(make_task(threshold=0.5))
    strict = view.expected(make_task(threshold=0.95))
    assert 0.01 < loose < strict < 0.03
    assert view.expected(make_task(threshold=0.5, segment=2)) == pytest.approx(0.01)


def test_a_dominated_exit_is_nothing_to_run_on_for(
    make_costs: Callable[..., CostModel],
    make_calibration: Callable[..., Calibration],
    make_task: MakeTask,
) -> None:
    view = ScheduledModel(make_costs(1.0, 1.0, 1.0), make_calibration(0.7, 0.6, 0.8), 8)
    assert view.next_useful(make_task(segment=1, exit=0)) == 2
    assert view.next_useful(make_task()) == 0
    assert view.next_useful(make_task(segment=1, exit=0, last=1)) == 1


def test_batches_make_waiting_work_less(view: ScheduledModel) -> None:
    assert view.discount(0, 1) == pytest.approx(1.0)
    assert view.discount(0, 3) == pytest.approx(2 / 3)
    assert view.discount(0, 1000) == view.discount(0, 8) == pytest.approx(4.5 / 8)


def test_the_forecast_is_the_accuracy_of_samples_that_are_as_confident(
    make_calibration: Callable[..., Calibration],
) -> None:
    table = make_calibration(0.6, 0.8, samples=4000)
    forecast = ExitForecast(table)
    confident = table.confidence[:, 0]
    for low, high in ((0.1, 0.3), (0.4, 0.6), (0.7, 0.9)):
        here = (confident >= low) & (confident < high)
        for target in (0, 1):
            said = np.mean([forecast.accuracy(0, float(c), target) for c in confident[here]])
            assert said == pytest.approx(table.correct[here, target].mean(), abs=0.06)
    assert forecast.accuracy(-1, 0.0, 1) == pytest.approx(0.8, abs=0.001)


def test_the_forecast_ascends_with_confidence_and_takes_all_of_it(
    make_calibration: Callable[..., Calibration],
) -> None:
    forecast = ExitForecast(make_calibration(0.6, 0.8))
    said = [forecast.accuracy(0, confidence, 1) for confidence in np.linspace(0, 1, 101)]
    assert said == sorted(said)
    assert 0 <= said[0] < said[-1] <= 1


def test_the_forecast_is_of_later_exits(make_calibration: Callable[..., Calibration]) -> None:
    forecast = ExitForecast(make_calibration(0.6, 0.8))
    assert forecast.accuracy(1, 0.9, 1) > forecast.accuracy(1, 0.5, 1)
    with pytest.raises(ValueError, match="exit 0 comes before exit 1"):
        forecast.accuracy(1, 0.9, 0)


def test_an_exit_that_is_always_right_has_a_forecast() -> None:
    confidence = np.linspace(0.5, 1, 40, dtype=np.float32)[:, None]
    table = Calibration(confidence, np.ones((40, 1), bool), np.zeros((40, 1), np.int32))
    assert ExitForecast(table).accuracy(0, 0.9, 0) > 0.9


def test_another_profile_is_followed(
    make_costs: Callable[..., CostModel],
    make_profile: Callable[..., Profile],
    make_calibration: Callable[..., Calibration],
    make_task: MakeTask,
) -> None:
    costs = make_costs(0.01, 0.01)
    view = ScheduledModel(costs, make_calibration(0.6, 0.7), 6)
    task = make_task(last=1)
    assert view.max_batch == 6
    assert view.expected(task) == pytest.approx(0.02)
    assert view.discount(0, 8) == pytest.approx(3.5 / 6)
    costs.use(make_profile(0.02, 0.02, batches=(1, 2, 4), growth=0.0), costs.energy)
    assert view.max_batch == 4
    assert view.typical(0, 1, 4) == pytest.approx(0.04)
    assert view.expected(task) == pytest.approx(0.04)
    assert view.discount(0, 8) == pytest.approx(0.25)
