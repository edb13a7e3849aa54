"""MPC and Jellyfish's client half: what they predict, and what they choose by it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policies.client.jellyfish import Jellyfish
from policies.client.mpc import Mpc

from .conftest import OPTIONS, Camera, index


def per_byte(rate: float) -> Callable[[float], float]:
    return lambda payload: payload / rate


def test_mpc_takes_the_largest_that_is_on_time(camera: Camera) -> None:
    # 10 kB in 10 ms: 30 kB in 30, and 2 of the model, within 33; 60 kB is not
    assert camera.play(Mpc(), 5, per_byte(1e6)) == [0, 1, 1, 1, 1]


def test_mpc_keeps_its_size_where_nothing_is_on_time(camera: Camera) -> None:
    controller = Mpc()
    camera.play(controller, 5, per_byte(1e6))
    controller.choose(camera.view())
    for _ in range(5):
        controller.ended(camera.report(1, 1.0))
    assert index(controller.choose(camera.view())) == 1


def test_mpc_predicts_by_the_harmonic_mean_of_five(camera: Camera) -> None:
    controller = Mpc()
    camera.play(controller, 6, per_byte(1e6))
    controller.choose(camera.view())
    # one of 0.5 MB/s among five: 5 / (4/1 + 1/.5) = .83 MB/s, and 30 kB take 36 ms
    controller.ended(camera.report(1, 0.060))
    assert index(controller.choose(camera.view())) == 0


def test_mpc_knows_how_slow_the_model_is(camera: Camera) -> None:
    controller = Mpc()
    camera.play(controller, 6, per_byte(1e6))
    controller.choose(camera.view())
    # 1 to 4 times: a moving average of 1.75; 30 ms and 3.5 are too much
    controller.ended(camera.report(1, 0.030, latency=0.008))
    assert index(controller.choose(camera.view())) == 0


def test_mpc_expects_what_deviates_to_go_on(camera: Camera) -> None:
    controller = Mpc()
    camera.play(controller, 6, per_byte(1e6))
    controller.choose(camera.view())
    controller.ended(camera.report(1, 0.033, payload=33_000.0))
    assert index(controller.choose(camera.view())) == 0


def test_mpc_waits_for_the_frame_before(camera: Camera) -> None:
    camera = Camera(deadline=0.100)
    controller = Mpc()
    camera.play(controller, 6, per_byte(1e6))
    assert index(controller.choose(camera.view())) == 2
    # Frame after frame of 60 kB without an answer queues up: 62, 62 + 62 - 33, ...
    chosen = [index(controller.choose(camera.view())) for _ in range(3)]
    assert chosen[0] == 2
    assert chosen[-1] <= 2


def test_mpc_blocks_at_more_than_thirty(camera: Camera) -> None:
    assert Mpc().choose(camera.view(in_flight=camera.flying(31))) is None


def test_jellyfish_takes_what_the_link_carries_at_the_frame_rate() -> None:
    camera = Camera(deadline=0.150)
    # 33.3 ms a frame: 30 kB at 1 MB/s are carried, 60 kB are not
    view = camera.view(network=[p.payload / 1e6 for p in OPTIONS])
    choice = Jellyfish().choose(view)
    assert index(choice) == 1
    assert choice is not None
    assert choice.max_latency == pytest.approx(0.120)


def test_jellyfish_leaves_room_for_two_batches() -> None:
    network = [0.005, 0.010, 0.020, 0.0295]
    assert index(Jellyfish().choose(Camera(0.034).view(network=network))) == 3
    assert index(Jellyfish().choose(Camera(0.033).view(network=network))) == 2


def test_jellyfish_sends_the_smallest_where_nothing_fits_or_is_known(camera: Camera) -> None:
    assert index(Jellyfish().choose(camera.view())) == 0
    assert index(Jellyfish().choose(camera.view(network=[1.0] * 4))) == 0


def test_jellyfish_leaves_the_daemon_its_time_for_a_frame_that_waited(camera: Camera) -> None:
    view = camera.view(network=[0.005, 0.010, 0.020, 0.0295], captured=-0.030, now=0.0)
    choice = Jellyfish().choose(view)
    assert choice is not None
    assert choice.max_latency == OPTIONS[choice.index].latency


def test_jellyfish_throttles_at_more_than_32(camera: Camera) -> None:
    assert Jellyfish().choose(camera.view(in_flight=camera.flying(32))) is not None
    assert Jellyfish().choose(camera.view(in_flight=camera.flying(33))) is None
