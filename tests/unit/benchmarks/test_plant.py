from __future__ import annotations

import numpy as np
import pytest

from benchmarks.plant import Network, Power, Sensor, polls, serve

POWER = Power(2.0, [1.0, 1.5], [2.0, 3.0], [4.0, 3.0])


def test_power_and_energy_count_blocks_on_top_of_the_static_power() -> None:
    moments = [0.5, 1.2, 1.7, 2.5, 3.5]
    assert POWER.watts(moments) == pytest.approx([2, 6, 8, 4, 2])
    assert np.diff(POWER.joules(moments)) == pytest.approx([2.2, 3.4, 4.4, 3.0])


def test_a_lag_delays_energy_and_loses_none() -> None:
    late = POWER.joules([0.0, 2.0, 60.0], lag=0.5) - POWER.joules([0.0, 2.0, 60.0])
    assert late[0] == pytest.approx(0)
    assert late[1] < -1
    assert late[2] == pytest.approx(0, abs=1e-6)


def test_the_sensor_holds_means_in_steps_of_its_quantum() -> None:
    sensor = Sensor(window=0.42, quantum=0.04, noise=0.0)
    times = polls(0, 6, 1)
    watts = sensor.read(POWER, times, 1)
    assert np.round(watts / 0.04) * 0.04 == pytest.approx(watts)
    assert len(np.unique(watts)) < len(times) / 5
    assert watts.max() <= 8.02
    exact = Sensor(window=0.0066, quantum=0, noise=0).read(POWER, np.linspace(0, 4, 40001), 2)
    assert exact.mean() * 4 == pytest.approx(2 * 4 + 7, rel=0.01)


def test_noise_and_phase_follow_the_seed() -> None:
    times = polls(0, 4, 3)
    one, same, other = (Sensor().read(POWER, times, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_polls_are_jittered_and_cover_the_time() -> None:
    times = polls(0, 10, 4)
    gaps = np.diff(times)
    assert times[0] == 0 and times[-1] >= 10
    assert 0.045 <= gaps.min() < gaps.max() <= 0.055


def test_requests_run_to_their_exit_in_batches_and_nothing_overlaps() -> None:
    network = Network("n", (0.002, 0.003), (0.01, 0.02), (0.5, 0.5))
    arrivals = np.sort(np.random.default_rng(5).uniform(0, 5, 600))
    served = serve(network, arrivals, (0.011, 0.019), 5)
    assert len(served.exits) == 600
    assert max(work.batch for work in served.works) > 1
    for before, after in zip(served.works, served.works[1:], strict=False):
        assert before.ended <= after.began
    deep = {share.request_id for work in served.works if work.segment == 1 for share in work.shares}
    assert deep == {request for request, number in served.exits.items() if number == 1}
    alone = [work.joules for work in served.works if (work.segment, work.batch) == (0, 1)]
    assert set(alone) == {0.011}
