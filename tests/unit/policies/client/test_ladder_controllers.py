"""Fixed, threshold and PID: their switch points, resets, blocking and stale feedback."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.client.api import FrameOption
from policies.client.fixed import Fixed
from policies.client.ladder import most_accurate
from policies.client.pid import Pid
from policies.client.threshold import WINDOW, Threshold

from .conftest import OPTIONS, Camera, index


def test_fixed_stays(camera: Camera) -> None:
    assert camera.play(Fixed(), 3, lambda payload: 1.0) == [1, 1, 1]
    assert camera.play(Fixed(0), 2, lambda payload: 0.0) == [0, 0]
    assert camera.play(Fixed(-1), 2, lambda payload: 1.0) == [3, 3]


def test_threshold_climbs_once_its_sum_is_early_enough(camera: Camera) -> None:
    # 21 ms early each: the sum is -250 after 12
    chosen = camera.play(Threshold(), 14, lambda payload: 0.010)
    assert chosen == [0] * 12 + [1] * 2


def test_threshold_descends_once_its_sum_is_late_enough(camera: Camera) -> None:
    controller = Threshold()
    camera.play(controller, 12, lambda payload: 0.010)
    # 10 ms late: 10^1.25 = 17.8 each, 125 after 8
    chosen = camera.play(controller, 10, lambda payload: 0.041)
    assert chosen == [1] * 8 + [0] * 2


def test_a_switch_empties_the_window(camera: Camera) -> None:
    controller = Threshold()
    chosen = camera.play(controller, 30, lambda payload: 0.010)
    assert chosen == [0] * 12 + [1] * 12 + [2] * 6


def test_threshold_forgets_what_left_its_window(camera: Camera) -> None:
    # 4.9 ms early for ever is never early enough: 50 of them are 245
    chosen = camera.play(Threshold(), 3 * WINDOW, lambda payload: 0.0261)
    assert set(chosen) == {0}


def test_pid_climbs_and_descends_at_its_thresholds(camera: Camera) -> None:
    # e = 5 ms: the first control is .6·5 + .4·5 = 5
    assert camera.play(Pid(), 2, lambda payload: 0.026) == [0, 1]
    slightly = Camera()
    assert slightly.play(Pid(), 20, lambda payload: 0.0261) == [0] * 20


def test_pid_has_no_difference_after_a_switch(camera: Camera) -> None:
    controller = Pid()
    camera.play(controller, 1, lambda payload: 0.026)
    # e = -3 after e = 5: P -1.8, I (5 - 3)/2·.4 = .4; with the difference it would be -4.6
    assert camera.play(controller, 1, lambda payload: 0.034) == [1]
    assert index(controller.choose(camera.view())) == 1
    # now the difference counts: e = -6, P -3.6, I (-4/3)·.4 = -.53, D -1.2
    controller.ended(camera.report(1, 0.037))
    assert index(controller.choose(camera.view())) == 0


@pytest.mark.parametrize("make", [Threshold, Pid])
def test_answers_to_another_size_are_ignored(
    camera: Camera, make: type[Threshold] | type[Pid]
) -> None:
    controller = make()
    for _ in range(200):
        controller.choose(camera.view())
        controller.ended(camera.report(1, 0.0))
    assert index(controller.choose(camera.view())) == 0


@pytest.mark.parametrize("make", [Threshold, Pid])
def test_nothing_is_sent_while_more_than_thirty_lack_an_answer(
    camera: Camera, make: type[Threshold] | type[Pid]
) -> None:
    controller = make()
    assert controller.choose(camera.view(in_flight=camera.flying(30))) is not None
    assert controller.choose(camera.view(in_flight=camera.flying(31))) is None


@pytest.mark.parametrize("make", [Threshold, Pid])
def test_lost_frames_count_as_late(camera: Camera, make: type[Threshold] | type[Pid]) -> None:
    controller = make()
    camera.play(controller, 60, lambda payload: 0.0)
    before = index(controller.choose(camera.view()))
    for _ in range(10):
        controller.choose(camera.view())
        controller.ended(camera.report(before, None))
    assert index(controller.choose(camera.view())) < before


def test_the_most_accurate_size_up_to_the_one_stood_on_is_sent() -> None:
    worse = FrameOption((300, 300), 40_000.0, 0.002, 0.55, 0)
    options = (OPTIONS[0], OPTIONS[1], worse, OPTIONS[3])
    assert [most_accurate(options, i) for i in range(4)] == [0, 1, 1, 3]
    equal = replace(worse, accuracy=OPTIONS[1].accuracy)
    assert most_accurate((OPTIONS[0], OPTIONS[1], equal), 2) == 2
