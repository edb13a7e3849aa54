from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from delen.bundle.calibration import Calibration
from delen.core.bounds import Bounds
from delen.core.dispatch import DispatchPolicy, PolicyCapabilities, Turn
from delen.errors import ModelNotFound
from delen.profile.profile import HostCosts, Quantiles
from delen.scheduler.policy_guard import InRank
from delen.simulate.arrivals import Poisson
from delen.simulate.bounds.upper_bound import upper_bound
from delen.simulate.device import DeviceSettings, SlowSpan
from delen.simulate.model import SimulatedModel
from delen.simulate.outcome import Fate, Outcomes
from delen.simulate.run import RunSettings, run
from delen.simulate.trace import Arrival, Trace
from policies.dispatch.published.edf import Edf
from policies.dispatch.published.fifo import Fifo
from policies.dispatch.value import Value
from policies.exit.apparate import apparate_policy
from policies.exit.tuned import tuned_policy

MakeModel = Callable[..., SimulatedModel]
EXACT = DeviceSettings(noise=False)


class Unplanned(InRank):
    """All to the deepest exit, one by one, in the order of arrival."""

    name = "unplanned"
    capabilities = PolicyCapabilities(plans=False, admits=False, guards=False)

    def choose(self, now: float, waiting: Any, models: Any) -> Turn:
        oldest = min((group.oldest for group in waiting.values()), key=lambda task: task.id)
        return Turn(run=[oldest])


def play(
    model: SimulatedModel | Sequence[SimulatedModel],
    arrivals: Sequence[Arrival],
    policy: Callable[[], DispatchPolicy] = InRank,
    device: DeviceSettings = EXACT,
    **settings: Any,
) -> Outcomes:
    models = [model] if isinstance(model, SimulatedModel) else model
    return run(
        Trace(tuple(arrivals)),
        {one.name: one for one in models},
        policy(),
        InRank(),
        RunSettings(device, **settings),
    )


def poisson(rate: float, seconds: float, **asked: Any) -> list[Arrival]:
    times = Poisson(rate).times(seconds, np.random.default_rng(7))
    return [Arrival(time, **asked) for time in times.tolist()]


def test_a_request_alone_takes_what_its_segments_take(make_model: MakeModel) -> None:
    done = play(make_model(watts=2.0), [Arrival(1.0, bounds=Bounds(max_latency=0.1))])
    assert done.fate.tolist() == [Fate.ANSWERED]
    assert done.exit.tolist() == [2]
    assert done.latency == pytest.approx([0.03])
    assert done.seconds == pytest.approx([0.03])
    assert done.energy == pytest.approx([0.06])
    assert done.ended == pytest.approx([1.03])
    assert not done.missed.any()


def test_a_cap_stops_where_it_is_still_kept(make_model: MakeModel) -> None:
    done = play(make_model(), [Arrival(0.0, bounds=Bounds(max_latency=0.025))])
    assert done.exit.tolist() == [1]
    assert not done.missed_latency.any()


def test_energy_caps_are_kept(make_model: MakeModel) -> None:
    done = play(make_model(watts=1.0), [Arrival(0.0, bounds=Bounds(max_energy=0.025))])
    assert done.exit.tolist() == [1]
    assert not done.missed_energy.any()


@pytest.mark.parametrize("policy", [InRank, Value])
def test_energy_caps_are_kept_on_a_device_that_takes_more_than_its_profile_says(
    make_model: MakeModel, policy: type[DispatchPolicy]
) -> None:
    """20 mJ are said to two exits and 30 % more is taken, in more or less noise."""
    model = make_model(watts=1.0, spread=0.04)
    asked = poisson(40.0, 20.0, bounds=Bounds(max_energy=0.022))
    slow = DeviceSettings(slow=(SlowSpan(0.0, 100.0, 1.3),))
    done = play(model, asked, policy, slow)
    assert done.missed_energy.sum() <= 4, "before it is seen how much is taken"
    assert np.bincount(done.exit, minlength=3).argmax() == 0
    done = play(model, asked, policy, DeviceSettings())
    assert done.missed_energy.mean() <= 0.02
    assert np.bincount(done.exit, minlength=3).argmax() == 1


def test_without_load_exits_are_those_of_the_calibration(make_model: MakeModel) -> None:
    model = make_model()
    floor = Bounds(min_accuracy=0.7)
    done = play(model, [Arrival(float(n), bounds=floor) for n in range(3000)])
    threshold = model.planner.plan(floor, _costs(model)).threshold
    assert threshold is not None
    shares = np.bincount(done.exit, minlength=3) / len(done)
    assert shares == pytest.approx(model.calibration.exit_shares(threshold, 2), abs=0.03)
    assert done.correct.mean() >= 0.7 - 0.02
    assert not done.missed_accuracy.any()


def _costs(model: SimulatedModel) -> Any:
    from delen.simulate.model import ModelInPlay

    return ModelInPlay(model).costs


def test_what_cannot_be_is_refused_for_its_bounds_and_what_cannot_be_now_for_the_load(
    make_model: MakeModel,
) -> None:
    tight = Bounds(max_latency=0.015)
    arrivals = [Arrival(0.0, bounds=Bounds(max_latency=0.001)), *[Arrival(0.0, bounds=tight)] * 20]
    done = play(make_model(growth=1.0), arrivals)
    assert done.fate[0] == Fate.INFEASIBLE
    assert done.fate[1] == Fate.ANSWERED
    assert (done.fate[2:] == Fate.OVERLOADED).all()
    assert not done.missed.any()


def test_a_backlog_that_is_too_long_refuses_what_has_no_bounds(make_model: MakeModel) -> None:
    done = play(make_model(), [Arrival(0.0)] * 100, max_backlog=0.2)
    refused = int((done.fate == Fate.OVERLOADED).sum())
    assert 0 < refused < 100
    assert (done.fate != Fate.OVERLOADED).sum() == 100 - refused


@pytest.mark.parametrize("policy", [Value, Fifo, Edf])
def test_what_no_exit_can_do_is_refused_whatever_the_policy_admits(
    make_model: MakeModel, policy: type[DispatchPolicy]
) -> None:
    """As the daemon does: a policy that looks at no load is not asked about bounds."""
    tight, loose = Bounds(max_latency=0.005), Bounds(max_latency=0.5)
    done = play(
        make_model(), [Arrival(0.1 * n, bounds=(tight, loose)[n % 2]) for n in range(20)], policy
    )
    assert (done.fate[::2] == Fate.INFEASIBLE).all()
    assert (done.fate[1::2] == Fate.ANSWERED).all()


@pytest.mark.parametrize("policy", [Value, Edf])
def test_nobody_waits_as_long_as_an_overload_lasts(
    make_model: MakeModel, policy: type[DispatchPolicy]
) -> None:
    """20 s of three times what the device can do, all of it in a hurry but one request a second
    without bounds and one with a floor."""
    model = make_model(growth=1.0)
    hurried = poisson(100.0, 20.0, bounds=Bounds(max_latency=0.2))
    others = [
        Arrival(0.5 * n, bounds=Bounds(min_accuracy=0.7) if n % 2 else Bounds()) for n in range(40)
    ]
    arrivals = sorted([*hurried, *others], key=lambda arrival: arrival.time)
    done = play(model, arrivals, policy, max_backlog=0.4)
    other = done[np.array([arrival.bounds.max_latency is None for arrival in arrivals])]
    assert other.answered.sum() >= 10
    assert (other.fate[~other.answered] == Fate.OVERLOADED).all()
    assert other.latency.max() <= 5 * 0.4 + 0.2
    assert not other.missed.any()


def test_a_policy_can_give_up(make_model: MakeModel) -> None:
    class Hopeless(InRank):
        name = "hopeless"

        def choose(self, now: float, waiting: Any, models: Any) -> Turn:
            return Turn(refuse=[task for group in waiting.values() for task in group])

    done = play(make_model(), [Arrival(0.0), Arrival(1.0)], Hopeless)
    assert (done.fate == Fate.OVERLOADED).all(), "what the daemon says of them, too"
    assert not done.effective.any()


def test_who_keeps_to_no_plan_runs_to_the_end_and_may_be_late(make_model: MakeModel) -> None:
    arrivals = [Arrival(0.0, bounds=Bounds(max_latency=0.035))] * 3
    done = play(make_model(), arrivals, Unplanned)
    assert done.exit.tolist() == [2, 2, 2]
    assert done.latency == pytest.approx([0.03, 0.06, 0.09])
    assert done.missed_latency.tolist() == [False, True, True]


def test_answers_of_the_policy_and_late_ones_have_the_exit_that_was_reached(
    make_model: MakeModel,
) -> None:
    class First(InRank):
        name = "first"

        def choose(self, now: float, waiting: Any, models: Any) -> Turn:
            tasks = [task for group in waiting.values() for task in group]
            return Turn(
                run=[task for task in tasks if task.exit < 0][:1],
                answer=[task for task in tasks if task.exit >= 0],
            )

    done = play(make_model(), [Arrival(0.0), Arrival(0.0)], First)
    assert done.exit.tolist() == [0, 0]
    assert done.latency == pytest.approx([0.01, 0.02])


def test_a_floor_that_is_cut_off_is_missed(make_model: MakeModel) -> None:
    class Cut(InRank):
        name = "cut"

        def choose(self, now: float, waiting: Any, models: Any) -> Turn:
            (group,) = waiting.values()
            tasks = list(group)
            return Turn(answer=tasks) if tasks[0].exit >= 0 else Turn(run=tasks)

    done = play(
        make_model(), [Arrival(float(n), bounds=Bounds(min_accuracy=0.7)) for n in range(99)], Cut
    )
    assert 0 < done.missed_accuracy.sum() < 99
    assert (done.exit == 0).all()


def test_a_slow_time_is_felt_and_over_again(make_model: MakeModel) -> None:
    slow = DeviceSettings(slow=(SlowSpan(10.0, 20.0, 2.0),), noise=False)
    done = play(make_model(), [Arrival(float(n)) for n in range(60)], Unplanned, slow)
    assert done.latency[:10] == pytest.approx([0.03] * 10)
    assert done.latency[10:20] == pytest.approx([0.06] * 10)
    assert done.latency[20:] == pytest.approx([0.03] * 40)


def test_the_slowdown_is_learnt(make_model: MakeModel) -> None:
    slow = DeviceSettings(slow=(SlowSpan(0.0, 1e6, 2.0),), noise=False)
    cap = Bounds(max_latency=0.045)
    done = play(make_model(), [Arrival(0.1 * n, bounds=cap) for n in range(100)], InRank, slow)
    assert done.exit[0] == 1, "the first exit took long, so the last one was not tried"
    assert (done.exit[-20:] == 1).all()
    assert not done.missed_latency[20:].any()


def test_the_network_takes_its_part_of_the_latency(make_model: MakeModel) -> None:
    far = DeviceSettings(network=0.004, noise=False)
    asked = [Arrival(0.0, bounds=Bounds(max_latency=cap)) for cap in (0.1,)]
    assert play(make_model(), asked, device=far).latency == pytest.approx([0.038])
    done = play(make_model(), [Arrival(0.0, bounds=Bounds(max_latency=0.035))], device=far)
    assert done.exit.tolist() == [1]
    assert not done.missed_latency.any()


HOST = HostCosts(request=0.001, batch=0.002, task=0.0005, answer=0.004)


def with_host(model: SimulatedModel, host: HostCosts = HOST) -> SimulatedModel:
    return replace(model, profile=replace(model.profile, host=host))


def test_serving_takes_its_time_beside_the_segments(make_model: MakeModel) -> None:
    loose = Bounds(max_latency=1.0)
    done = play(with_host(make_model()), [Arrival(1.0, bounds=loose)])
    assert done.latency == pytest.approx([0.03 + 0.001 + 3 * (0.002 + 0.0005)])
    assert done.seconds == pytest.approx([0.03])


def test_plans_know_what_serving_takes(make_model: MakeModel) -> None:
    """A cap just below what an exit takes leads to the one before it, and is kept; one below the
    first exit's time is refused before anything runs."""
    model, step = with_host(make_model()), 0.01 + 0.002 + 0.0005
    for exits, deepest in ((3.0, 2), (2.99, 1), (1.99, 0), (0.99, None)):
        cap = Bounds(max_latency=0.001 + exits * step + 1e-9)
        done = play(model, [Arrival(0.0, bounds=cap)])
        if deepest is None:
            assert done.fate.tolist() == [Fate.INFEASIBLE]
        else:
            assert (done.fate.tolist(), done.exit.tolist()) == ([Fate.ANSWERED], [deepest])
            assert not done.missed_latency.any()


def test_the_host_does_one_thing_after_the_other(make_model: MakeModel) -> None:
    """The second request is read when the first is waiting, and answered when it is written."""
    loose = Bounds(max_latency=1.0)
    host = HostCosts(request=0.004, answer=0.003)
    done = play(with_host(make_model(growth=0.0), host), [Arrival(0.0, bounds=loose)] * 2)
    first, second = sorted(done.latency.tolist())
    assert first >= 0.034
    assert second - first >= 0.003


def test_a_front_end_takes_the_host_and_after_answers_delays_only_others(
    make_model: MakeModel,
) -> None:
    device = DeviceSettings(noise=False, front=(0.005, 0.02))
    loose = Bounds(max_latency=1.0)
    alone = play(make_model(), [Arrival(0.0, bounds=loose)], device=device)
    assert alone.latency == pytest.approx([0.035])
    second = Arrival(0.036, bounds=loose)
    both = play(make_model(), [Arrival(0.0, bounds=loose), second], device=device)
    assert both.latency == pytest.approx([0.035, 0.019 + 0.035])


def test_a_front_end_in_a_crowd_takes_less(make_model: MakeModel) -> None:
    def slowest(crowded: tuple[float, float] | None) -> float:
        device = DeviceSettings(noise=False, front=(0.005, 0.0), crowded=crowded)
        arrivals = [Arrival(0.0, bounds=Bounds(max_latency=1.0))] * 40
        return float(max(play(make_model(growth=0.0), arrivals, device=device).latency))

    assert slowest(None) == slowest((0.005, 0.0)) > slowest((0.001, 0.0))


def test_a_device_that_has_drifted_surprises_its_scheduler(make_model: MakeModel) -> None:
    model = make_model()
    slower = HostCosts(stretch=Quantiles(1.5, 1.5, 1.5, 1.5))
    drifted = replace(model, become=replace(model.profile, host=slower))
    cap = Bounds(max_latency=0.032)
    as_profiled = play(model, [Arrival(0.0, bounds=cap)])
    done = play(drifted, [Arrival(0.0, bounds=cap)])
    assert (as_profiled.exit.tolist(), done.exit.tolist()) == ([2], [1])
    assert done.latency == pytest.approx([0.03])
    many = play(drifted, [Arrival(0.05 * n) for n in range(200)])
    assert as_profiled.slowdown == pytest.approx(1.0)
    assert many.slowdown is not None and 1.3 < many.slowdown < 1.5


def test_a_slow_run_takes_more_of_the_joules_that_processor_time_costs(
    make_model: MakeModel,
) -> None:
    slow = DeviceSettings(noise=False, slow=(SlowSpan(0.0, 9.0, 2.0),))
    done = play(make_model(watts=2.0), [Arrival(1.0, bounds=Bounds(max_latency=1.0))], device=slow)
    assert done.energy == pytest.approx([0.12])


def test_two_lanes_do_twice_as_much_unless_they_slow_each_other(make_model: MakeModel) -> None:
    def longest(**how: Any) -> float:
        device = DeviceSettings(noise=False, **how)
        return float(play(make_model(), [Arrival(0.0)] * 2, Unplanned, device).latency.max())

    assert longest() == pytest.approx(0.06)
    assert longest(lanes=2) == pytest.approx(0.03)
    assert 0.03 < longest(lanes=2, interference=(1.0, 1.5)) <= 0.045 + 1e-9


def test_a_second_lane_helps_as_far_as_it_gains(make_model: MakeModel) -> None:
    """Under 1.5 times the load that one lane can answer at all."""

    def effective(lanes: int, corun: float, knows: bool = True) -> float:
        model = make_model(corun=(1.0, corun) if knows else None, spread=0.1, growth=1.0)
        device = DeviceSettings(lanes=lanes, interference=(1.0, corun))
        arrivals = poisson(150.0, 10.0, bounds=Bounds(max_latency=0.1))
        done = play(model, arrivals, Value, device)
        assert not done.failures
        return float(done.effective.mean())

    alone, none = effective(1, 1.0), effective(2, 2.1)
    useful, free = effective(2, 1.3), effective(2, 1.0)
    assert alone + 0.05 < useful < free
    assert none == pytest.approx(alone, abs=0.02), "a lane that gains nothing is left alone"
    assert effective(2, 1.3, knows=False) == pytest.approx(useful, abs=0.03), "it is learnt"


def test_models_are_told_apart(make_model: MakeModel) -> None:
    models = [make_model(), make_model("n", watts=1.0)]
    done = play(models, [Arrival(0.0), Arrival(1.0, model="n"), Arrival(2.0, model="m")])
    assert np.isnan(done.energy).tolist() == [True, False, True]
    with pytest.raises(ModelNotFound, match="'other'; simulated: m, n"):
        play(models, [Arrival(0.0, model="other")])


def test_the_same_seed_is_the_same_run_and_another_is_not(make_model: MakeModel) -> None:
    arrivals = poisson(60.0, 5.0, bounds=Bounds(max_latency=0.08))
    model = make_model(spread=0.1)
    one, same, other = (
        play(model, arrivals, device=DeviceSettings(), seed=seed) for seed in (1, 1, 2)
    )
    assert one.latency.tolist() == same.latency.tolist() != other.latency.tolist()
    assert one.exit.tolist() == same.exit.tolist()


def test_nobody_is_above_the_upper_bound(make_model: MakeModel) -> None:
    model = make_model(spread=0.1)
    for rate in (20.0, 60.0, 150.0):
        arrivals = poisson(rate, 10.0, bounds=Bounds(max_latency=0.06))
        bound = upper_bound(Trace(tuple(arrivals)), {"m": model}, DeviceSettings(), 0)
        done = play(model, arrivals, device=DeviceSettings())
        assert done.effective.mean() <= bound + 0.02


def test_overload_makes_answers_shallower_before_it_refuses(make_model: MakeModel) -> None:
    class FirstAnswersFirst(InRank):
        name = "first_answers_first"

        def choose(self, now: float, waiting: Any, models: Any) -> Turn:
            return Turn(run=waiting[min(waiting)].first(1))

    cap = Bounds(max_latency=0.1)
    model = make_model(growth=1.0)
    calm = play(model, poisson(10.0, 20.0, bounds=cap), FirstAnswersFirst)
    busy = play(model, poisson(70.0, 20.0, bounds=cap), FirstAnswersFirst)
    assert busy.exit[busy.answered].mean() < calm.exit.mean() - 0.5
    assert (busy.fate == Fate.OVERLOADED).mean() < 0.05
    assert busy.missed_latency.mean() < 0.01


def test_an_empty_trace_is_no_run(make_model: MakeModel) -> None:
    done = play(make_model(), [])
    assert len(done) == 0


def test_a_policy_that_fails_is_told_of_and_harms_nothing(make_model: MakeModel) -> None:
    class Broken(InRank):
        name = "broken"

        def choose(self, now: float, waiting: Any, models: Any) -> Turn:
            raise KeyError("no such thing")

    arrivals = poisson(30.0, 5.0)
    done = play(make_model(), arrivals, Broken)
    assert done.policy_failures > len(arrivals)
    assert done.failures == (
        "the dispatch policy 'broken' failed in choose(): KeyError: 'no such thing'",
    )
    assert done.latency.tolist() == play(make_model(), arrivals).latency.tolist()


@pytest.mark.parametrize("error", [RuntimeError("no idea"), SystemExit("no idea")])
def test_an_exit_policy_that_fails_is_told_of_and_the_default_decides(
    make_model: MakeModel, error: BaseException
) -> None:
    class Broken:
        by_threshold = True

        def decide(self, view: Any) -> Any:
            raise error

    arrivals = poisson(30.0, 2.0, bounds=Bounds(max_latency=0.05))
    model = make_model()
    done = play(replace(model, policy=Broken()), arrivals)
    assert done.exit.tolist() == play(model, arrivals).exit.tolist()
    assert done.policy_failures >= len(arrivals)
    assert done.failures == (f"the exit policy of 'm' failed: {type(error).__name__}: no idea",)


def others(model: SimulatedModel) -> SimulatedModel:
    """``model`` where all inputs are of those that its first exit is not sure of."""
    table = model.calibration
    rows = table.confidence[:, 0] < 0.7
    parts = (table.confidence[rows], table.correct[rows], table.predictions[rows])
    return replace(model, calibration=Calibration(*parts))


def test_thresholds_that_are_tuned_follow_the_inputs(make_model: MakeModel) -> None:
    tuned = replace(make_model(), policy=tuned_policy(3))
    arrivals = poisson(10.0, 60.0)
    assert np.array_equal(play(tuned, arrivals).exit, play(make_model(), arrivals).exit)
    fixed, raised = (play(others(each), arrivals) for each in (make_model(), tuned))
    assert (fixed.exit[200:] < 2).any()
    assert (raised.exit[200:400] == 2).all(), "none is confident until a sample is complete"
    again = play(others(tuned), arrivals)
    assert np.array_equal(raised.exit, again.exit), "every run begins with what was calibrated"


def test_apparate_learns_from_audits(make_model: MakeModel) -> None:
    model, arrivals = replace(make_model(), policy=apparate_policy(3)), poisson(10.0, 100.0)
    every, none = (play(model, arrivals, audit_fraction=fraction) for fraction in (1.0, 0.0))
    assert (every.exit < 2).any() and (none.exit < 2).any()
    assert not np.array_equal(every.exit, none.exit)


def test_progress_is_told(make_model: MakeModel) -> None:
    told: list[tuple[int, int]] = []
    arrivals = tuple(Arrival(float(n)) for n in range(250))
    model = make_model()
    run(
        Trace(arrivals),
        {"m": model},
        InRank(),
        InRank(),
        RunSettings(),
        lambda *at: told.append(at),
    )
    assert told[0] == (2, 250)
    assert told[-1] == (250, 250)


@pytest.mark.parametrize(("margin", "exit"), [(1.02, 0), (1.6, 0), (1.02, 1), (1.25, 1), (1.02, 2)])
def test_a_tight_latency_cap_is_kept_in_99_of_100_cases(
    make_model: MakeModel, margin: float, exit: int
) -> None:
    """Caps above what an exit takes in 99 of 100 runs, some also above the next exit's median."""
    model = make_model(spread=0.1)
    cap = margin * sum(segment[1].latency.p99 for segment in model.profile.segments[: exit + 1])
    arrivals = [Arrival(float(number), bounds=Bounds(max_latency=cap)) for number in range(3000)]
    done = play(model, arrivals, Value, DeviceSettings())
    assert done.answered.mean() >= 0.99
    assert done.missed_latency.mean() <= 0.01
    assert done.exit[done.answered].max() >= exit, "and the cap is made use of"
