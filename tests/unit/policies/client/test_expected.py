"""delen's own controller: what it forecasts, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from policies.client.api import SentFrame
from policies.client.expected import Expected
from policies.client.forecast import PRIOR, WINDOW, Forecast

from .conftest import OPTIONS, Camera, index


def steady(rate: float) -> Callable[[float], float]:
    return lambda payload: payload / rate


def jittery(rate: float, spread: float, seed: int = 0) -> Callable[[float], float]:
    rng = np.random.default_rng(seed)
    return lambda payload: payload / rate * float(np.exp(spread * rng.normal()))


def sent_share(chosen: Sequence[int | None], option: int) -> float:
    return sum(each == option for each in chosen) / len(chosen)


def test_the_largest_that_is_on_time_is_sent(camera: Camera) -> None:
    # 30 kB in 30 ms and 2 of the daemon are within 33; 60 kB are not
    assert camera.play(Expected(), 90, steady(1e6))[60:] == [1] * 30
    assert Camera().play(Expected(), 90, steady(2.5e6))[60:] == [2] * 30


def test_what_varies_needs_more_room(camera: Camera) -> None:
    calm = camera.play(Expected(), 300, steady(1.1e6))
    wild = Camera().play(Expected(), 300, jittery(1.1e6, 0.3))
    assert sent_share(calm[100:], 1) == 1.0
    assert sent_share(wild[100:], 0) > 0.9


def test_a_slower_daemon_needs_more_room(camera: Camera) -> None:
    controller = Expected()
    camera.play(controller, 90, steady(1e6))
    for _ in range(30):
        choice = index(controller.choose(camera.view()))
        controller.ended(camera.report(choice, OPTIONS[choice].payload / 1e6, latency=0.012))
    assert index(controller.choose(camera.view())) == 0


def test_an_option_that_is_no_better_is_not_sent() -> None:
    worse = replace(OPTIONS[3], accuracy=0.6)
    camera = Camera(options=(*OPTIONS[:3], worse))
    assert camera.play(Expected(), 90, steady(1e8))[60:] == [2] * 30


def test_it_descends_at_once_when_the_link_slows(camera: Camera) -> None:
    controller = Expected()
    camera.play(controller, 90, steady(4e6))
    assert index(controller.choose(camera.view())) == 3
    controller.ended(camera.report(3, 0.2))
    assert index(controller.choose(camera.view())) <= 1


def test_frames_that_should_have_been_answered_are_news(camera: Camera) -> None:
    camera = Camera(deadline=0.1)
    controller = Expected()
    camera.play(controller, 90, steady(4e6))
    view = camera.view()
    assert index(controller.choose(view)) == 3
    # 100 kB take 25 ms; after a second there is still no answer to any of three
    flying = [SentFrame(view.frame + n, 3, 100_000.0, view.now + 0.03 * n) for n in range(3)]
    later = camera.view(now=view.now + 1.0, captured=view.now + 1.0, in_flight=flying)
    silent = controller.choose(later)
    assert silent is None or silent.index == 0


def test_what_cannot_be_on_time_is_dropped_while_something_is_in_flight(camera: Camera) -> None:
    controller = Expected()
    camera.play(controller, 90, steady(1e6))
    view = camera.view()
    sent = SentFrame(view.frame, 3, 100_000.0, view.now - 0.001)
    assert controller.choose(camera.view(in_flight=(sent,))) is None
    assert controller.choose(camera.view()) is not None


def test_a_silent_link_is_probed_with_the_smallest(camera: Camera) -> None:
    controller = Expected()
    camera.play(controller, 90, steady(1e6))
    for _ in range(10):
        choice = controller.choose(camera.view())
        assert choice is not None
        controller.ended(camera.report(choice.index, None))
    assert index(controller.choose(camera.view())) == 0


def test_it_comes_back_after_an_outage(camera: Camera) -> None:
    controller = Expected()
    camera.play(controller, 90, steady(1e6))
    for _ in range(20):
        choice = controller.choose(camera.view())
        controller.ended(camera.report(index(choice), None))
    chosen = camera.play(controller, 400, steady(1e6))
    assert chosen[0] == 0
    assert sent_share(chosen[-50:], 1) > 0.9


def test_the_bound_of_the_daemon_is_what_the_link_leaves(camera: Camera) -> None:
    controller = Expected()
    camera.play(controller, 90, steady(2e6))
    choice = controller.choose(camera.view())
    assert choice is not None
    # 33 ms less the 30 that 60 kB take
    assert choice.index == 2
    assert choice.max_latency == pytest.approx(0.003, abs=0.001)


def test_noise_does_not_switch(camera: Camera) -> None:
    chosen = camera.play(Expected(), 600, jittery(1.6e6, 0.1))
    switches = sum(a != b for a, b in pairwise(chosen[100:]))
    assert switches < 60


def test_a_controller_before_its_first_frame_ignores_reports(camera: Camera) -> None:
    camera.frame = 0
    Expected().ended(camera.report(0, 0.01))


def learn(forecast: Forecast, camera: Camera, networks: Sequence[float | None]) -> None:
    for network in networks:
        camera.frame += 1
        forecast.expect(camera.frame)
        forecast.learn(camera.report(0, network), OPTIONS[0], 0.0)


def test_the_pace_follows_what_payloads_take(camera: Camera) -> None:
    forecast = Forecast()
    assert forecast.pace is None
    learn(forecast, camera, [0.010])
    assert forecast.pace == pytest.approx(1e-6)
    learn(forecast, camera, [0.020] * 20)
    assert forecast.pace == pytest.approx(2e-6, rel=0.01)


def test_waiting_for_the_frame_before_is_not_the_pace(camera: Camera) -> None:
    forecast = Forecast()
    camera.frame = 0
    forecast.learn(camera.report(0, 0.010), OPTIONS[0], 0.0)
    for frame in (1, 2):
        # both are sent at once: the second one waits 10 ms for the first
        report = camera.report(0, 0.010 * frame, frame=frame)
        forecast.learn(report, OPTIONS[0], 0.0)
    assert forecast.pace == pytest.approx(1e-6, rel=0.25)


def test_errors_are_kept_for_a_window(camera: Camera) -> None:
    forecast = Forecast()
    learn(forecast, camera, [0.010] * (PRIOR + 2))
    outlook = forecast.outlook(camera.view())
    assert abs(outlook.error).max() == pytest.approx(0.0, abs=1e-9)
    learn(forecast, camera, [0.100, *[0.010] * 30])
    assert forecast.outlook(camera.view()).error.max() > 5
    learn(forecast, camera, [0.010] * WINDOW)
    assert forecast.outlook(camera.view()).error.max() < 1


def test_cases_that_silence_rules_out_are_left_out(camera: Camera) -> None:
    forecast = Forecast()
    rng = np.random.default_rng(1)
    learn(forecast, camera, (0.010 * np.exp(0.3 * rng.normal(size=100))).tolist())
    view = camera.view()
    everything = len(forecast.outlook(view).error)

    def after(seconds: float) -> int:
        sent = SentFrame(view.frame, 0, 10_000.0, view.now)
        now = view.now + seconds
        return len(forecast.outlook(replace(view, now=now, in_flight=(sent,))).error)

    assert after(0.002) == everything
    assert 0 < after(0.013) < everything
    stopped = SentFrame(view.frame, 0, 10_000.0, view.now)
    outlook = forecast.outlook(replace(view, now=view.now + 1.0, in_flight=(stopped,)))
    rest = outlook.free - view.now - 1.0
    assert np.median(rest) == pytest.approx(1.0, rel=0.1)


def test_avoidable_misses_make_it_careful(camera: Camera) -> None:
    """A link that is twice as slow for every 20th frame: caution costs accuracy, and is bought."""
    controller, late, counts = Expected(), [], [0] * len(OPTIONS)
    for frame in range(1500):
        choice = controller.choose(camera.view())
        assert choice is not None
        slow = 2.0 if frame % 20 == 7 else 1.0
        network = OPTIONS[choice.index].payload / 2.2e6 * slow
        controller.ended(camera.report(choice.index, network))
        late.append(network + 0.002 > camera.deadline)
        counts[choice.index] += 1
    assert sum(late[500:]) < 20
    assert counts[1] > 500


def test_misses_that_nobody_can_avoid_cost_nothing(camera: Camera) -> None:
    # the smallest takes 30 ms or, every second frame, 40: it is sent all the same
    rates = iter([0.030, 0.040] * 200)
    chosen = camera.play(Expected(), 400, lambda payload: next(rates) * payload / 10_000)
    assert chosen.count(None) == 0
    assert sent_share(chosen[50:], 0) > 0.95
