from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plant import Network, Power, Sensor, serve
from delen.core.work import Share, Split, Work
from power.attribution.attribution import LONGEST_WORK, Attributor
from power.sources.series import Samples

ME = Share("r1", "camera")
NETWORK = Network(
    "net",
    seconds=(0.0030, 0.0025, 0.0040, 0.0045, 0.0035),
    joules=(0.0180, 0.0125, 0.0300, 0.0270, 0.0175),
    leaves=(0.35, 0.20, 0.20, 0.10, 0.15),
)


def work(
    began: float,
    ended: float,
    joules: float | None,
    *shares: Share,
    segment: int = 0,
    model: str = "m",
) -> Work:
    return Work(model, segment, max(len(shares), 1), began, ended, joules, shares)


def flat(watts: float, began: float, ended: float) -> Samples:
    times = np.arange(began - 0.05, ended + 0.1, 0.05)
    return Samples(times, np.full(len(times), watts))


def windows(
    attributor: Attributor, works: Sequence[Work], samples: Samples, count: int
) -> list[Split]:
    splits = []
    for window in range(count):
        for each in works:
            if window <= each.ended - 0.1 < window + 1:
                attributor.add(each)
        inside = samples.between(window - LONGEST_WORK, window + 1)
        splits.append(attributor.close(window, window + 1, inside))
    return splits


REQUESTS = st.integers(0, 4).map(lambda number: Share(f"r{number}", "t"))
WORKS = st.lists(
    st.builds(
        lambda began, length, joules, segment, shares: work(
            began, began + length, joules, *shares, segment=segment
        ),
        st.floats(0, 4),
        st.floats(0, 0.5),
        st.none() | st.floats(0, 5),
        st.integers(0, 2),
        st.lists(REQUESTS, max_size=3, unique=True),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(
    works=WORKS,
    watts=st.lists(st.floats(-5, 60), min_size=120, max_size=120),
    counter=st.booleans(),
    lost=st.sets(st.integers(0, 4)),
)
def test_in_every_window_the_parts_sum_to_what_was_measured(
    works: list[Work], watts: list[float], counter: bool, lost: set[int]
) -> None:
    times = np.arange(120) * 0.05 - 0.02
    joules = np.cumsum(np.abs(watts)) * 0.05 if counter else None
    samples = Samples(times, np.array(watts), joules)
    attributor, given_out = Attributor(), 0.0
    audits = any(not each.shares for each in works)
    for window in range(5):
        for each in works:
            if window <= each.ended < window + 1:
                attributor.add(each)
        inside = None if window in lost else samples.between(window, window + 1)
        split = attributor.close(window, window + 1, inside)
        named = sum(split.by_share.values())
        given_out += named
        assert named <= split.attributed * (1 + 1e-9) + 1e-12
        if not audits:
            assert named == pytest.approx(split.attributed, rel=1e-9, abs=1e-12)
        if inside is None:
            assert (split.measured, split.idle, split.other) == (None, None, None)
            assert split.kind == "estimated"
        else:
            assert split.measured is not None and split.idle is not None
            assert split.other is not None
            size = abs(split.attributed) + abs(split.idle) + abs(split.other) + 1e-9
            total = split.attributed + split.idle + split.other
            assert abs(total - split.measured) <= 1e-9 * size


def test_what_runs_at_once_on_two_lanes_shares_what_both_took() -> None:
    """Each of two draws 3 W for half a second, one of them beside the other for half of that."""
    times = np.arange(0.0, 40.0, 0.01)
    phase = times % 1.0
    noise = np.random.default_rng(0).normal(0, 0.02, len(times))
    watts = (
        2.0
        + noise
        + 3.0 * ((phase >= 0.1) & (phase < 0.6))
        + 3.0 * ((phase >= 0.35) & (phase < 0.85))
    )
    one, other = Share("a", "camera"), Share("b", "phone")
    works = [
        work(window + began, window + began + 0.5, 1.5, share, segment=segment)
        for window in range(40)
        for began, share, segment in ((0.1, one, 0), (0.35, other, 1))
    ]
    splits = windows(Attributor(), works, Samples(times, watts), 39)
    last = splits[-2]
    assert last.kind == "attributed"
    assert last.by_share[one] == pytest.approx(1.5, rel=0.1)
    assert last.by_share[other] == pytest.approx(1.5, rel=0.1)


def test_without_a_measurement_requests_get_the_prediction_shared_alike() -> None:
    attributor = Attributor()
    attributor.add(work(0.1, 0.2, 0.6, ME, Share("r2", "camera")))
    split = attributor.close(0, 1, None)
    assert split.kind == "estimated"
    assert split.measured is split.idle is split.other is None
    assert split.by_share == {ME: pytest.approx(0.3), Share("r2", "camera"): pytest.approx(0.3)}
    assert split.complete == {"r1", "r2"}


def test_what_the_daemon_ran_for_itself_is_attributed_to_nobody() -> None:
    attributor = Attributor()
    attributor.add(work(0.1, 0.2, 0.6))
    attributor.add(work(0.2, 0.3, 0.2, ME))
    split = attributor.close(0, 1, None)
    assert split.attributed == pytest.approx(0.8)
    assert split.by_share == {ME: pytest.approx(0.2)}


def test_a_work_across_windows_gets_each_part_once() -> None:
    attributor = Attributor()
    attributor.add(work(0.5, 2.5, 2.0, ME))
    splits = [attributor.close(n, n + 1, None) for n in range(4)]
    parts = [split.by_share.get(ME, 0.0) for split in splits]
    assert parts == pytest.approx([0.5, 1.0, 0.5, 0.0], abs=0.02)
    assert sum(parts) == pytest.approx(2.0)
    assert [split.complete for split in splits] == [set(), set(), {"r1"}, set()]


def test_a_work_told_late_gets_all_in_the_next_window() -> None:
    attributor = Attributor()
    attributor.close(0, 1, None)
    attributor.add(work(0.5, 0.6, 0.4, ME))
    assert attributor.close(1, 2, None).by_share == {ME: pytest.approx(0.4)}


def test_a_request_is_complete_when_all_its_works_have_shown() -> None:
    attributor = Attributor()
    attributor.add(work(0.5, 0.6, 0.4, ME))
    attributor.add(work(0.9, 1.1, 0.4, ME, segment=1))
    assert attributor.close(0, 1, None).complete == set()
    assert attributor.close(1, 2, None).complete == {"r1"}


@pytest.mark.parametrize("joules", [None, 0.0])
def test_works_without_joules_share_by_their_seconds(joules: float | None) -> None:
    attributor = Attributor()
    attributor.add(work(0.1, 0.4, joules, ME))
    attributor.add(work(0.5, 0.6, joules, Share("r2", "t")))
    by_share = attributor.close(0, 1, None).by_share
    assert by_share[ME] == pytest.approx(3 * by_share[Share("r2", "t")])


def test_works_without_joules_learn_the_power_they_draw() -> None:
    works = [
        work(t, t + 0.02, None, Share(f"r{i}", "t")) for i, t in enumerate(np.arange(3, 40, 0.05))
    ]
    power = Power(2.0, [w.began for w in works], [w.ended for w in works], [0.06] * len(works))
    samples = Sensor().poll(power, -0.1, 41, 1)
    last = windows(Attributor(), works, samples, 39)[-1]
    assert last.kind == "attributed"
    assert last.attributed == pytest.approx(20 * 0.06, rel=0.06)


def test_an_idle_device_is_idle() -> None:
    attributor = Attributor()
    for window in range(5):
        split = attributor.close(window, window + 1, flat(4.0, window, window + 1))
    assert split.measured == pytest.approx(4)
    assert split.idle == pytest.approx(4, rel=0.01)
    assert split.attributed == 0
    assert attributor.static_watts == pytest.approx(4, rel=0.01)
    assert attributor.time_constant is None


def test_a_static_power_that_a_profile_knows_counts_from_the_start() -> None:
    assert Attributor(3.5).static_watts == 3.5
    assert Attributor().static_watts is None


def test_readings_that_do_not_cover_the_window_measure_nothing() -> None:
    split = Attributor().close(0, 1, flat(4.0, 0.5, 1))
    assert split.measured is None
    assert split.kind == "estimated"


def test_another_program_goes_to_other_and_in_time_to_idle() -> None:
    attributor = Attributor()
    for window in range(10):
        attributor.close(window, window + 1, flat(4.0, window, window + 1))
    burst = [attributor.close(n, n + 1, flat(9.0, n, n + 1)) for n in range(10, 310)]
    assert burst[3].other == pytest.approx(5, rel=0.15)
    assert burst[-1].idle == pytest.approx(9, rel=0.05)
    after = [attributor.close(n, n + 1, flat(4.0, n, n + 1)) for n in range(310, 320)]
    assert after[-1].idle == pytest.approx(4, rel=0.05)


def played(sensor: Sensor, network: Network, factor: float) -> tuple[Attributor, list[Split]]:
    predicted = tuple(joules / factor for joules in network.joules)
    arrivals = np.sort(np.random.default_rng(1).uniform(2, 30, 1000))
    served = serve(network, arrivals, predicted, 1)
    samples = sensor.poll(served.power(3.0), -0.1, 33, 1)
    attributor = Attributor()
    return attributor, windows(attributor, served.works, samples, 31)


@pytest.mark.parametrize(("window", "delay"), [(0.0066, 0.0066), (0.42, 0.42)])
def test_factors_and_the_sensors_delay_are_learnt(window: float, delay: float) -> None:
    attributor, splits = played(Sensor(window=window), NETWORK, 2.0)
    factors = [attributor.factor("net", segment) for segment in range(5)]
    assert factors == pytest.approx([2.0] * 5, rel=0.15)
    assert attributor.factors() == {
        ("net", n): pytest.approx(factors[n], rel=0.01) for n in range(5)
    }
    assert attributor.time_constant == pytest.approx(delay, rel=0.35)
    assert attributor.static_watts == pytest.approx(3, abs=0.15)
    assert attributor.revision > 0
    assert splits[-2].kind == "attributed"


def test_without_readings_works_of_long_ago_are_let_go() -> None:
    """Without a sensor nothing ever looks back at them: they must not pile up."""
    attributor = Attributor()

    def held(windows: range) -> int:
        tracemalloc.start()
        for window in windows:
            for nth in range(20):
                began = window + nth / 20
                share = Share(f"{window}-{nth}", "t")
                attributor.add(work(began, began + 0.01, 0.1, share))
            attributor.close(window, window + 1, None)
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size

    held(range(200))
    assert held(range(200, 800)) < 200_000


def test_what_is_forgotten_is_predicted_as_at_first() -> None:
    attributor, _ = played(Sensor(), NETWORK, 2.0)
    before = attributor.revision
    attributor.forget("net")
    assert attributor.factor("net", 0) == 1
    assert attributor.factors() == {}
    assert attributor.revision > before


def test_a_reset_makes_its_window_estimated_and_lets_factors_move_soon() -> None:
    attributor, _ = played(Sensor(), NETWORK, 1.0)
    learnt = attributor.factor("net", 0)
    attributor.reset("power mode 15W")
    attributor.add(work(31.2, 31.3, 0.1, ME, model="net"))
    split = attributor.close(31, 32, flat(4.0, 31, 32))
    assert split.kind == "estimated"
    assert split.attributed + (split.idle or 0) + (split.other or 0) == split.measured
    assert attributor.factor("net", 0) == learnt


def test_a_prediction_that_is_trusted_moves_less() -> None:
    moved = []
    for sd in (0.05, 1.0):
        attributor = Attributor(3.0)
        attributor.trust("m", sd)
        works = [work(n + 0.2, n + 0.7, 0.5, ME) for n in range(7)]
        power = Power(3.0, [w.began for w in works], [w.ended for w in works], [1.0] * 7)
        windows(attributor, works, Sensor(noise=0.4).poll(power, -0.1, 9, 3), 7)
        moved.append(attributor.factor("m", 0) - 1)
    assert 0 < moved[0] < moved[1]


def test_an_energy_counter_is_followed_in_place_of_the_watts() -> None:
    rng = np.random.default_rng(2)
    began = np.sort(rng.uniform(2, 30, 600))
    works = [work(t, t + 0.02, 0.05, Share(f"r{i}", "t")) for i, t in enumerate(began)]
    power = Power(3.0, began, began + 0.02, np.full(len(began), 0.1))
    times = np.arange(-0.1, 32, 0.05)
    samples = Samples(times, np.full(len(times), 50.0), power.joules(times))
    attributor = Attributor()
    splits = windows(attributor, works, samples, 30)
    assert attributor.factor("m", 0) == pytest.approx(2, rel=0.02)
    assert sum(split.measured or 0 for split in splits) == pytest.approx(
        float(power.joules(30.0) - power.joules(0.0)), rel=1e-6
    )


@pytest.mark.parametrize("off", [0.05, 0.2])
def test_readings_of_doubtful_timing_still_teach_the_ratio(off: float) -> None:
    rng = np.random.default_rng(4)
    predicted = tuple(joules / 2 for joules in NETWORK.joules)
    arrivals = np.sort(rng.uniform(5, 40, 1200))
    served = serve(NETWORK, arrivals, predicted, 4)
    samples = Sensor().poll(served.power(3.0), -0.5, 43, 4)
    times = np.sort(samples.times + rng.uniform(-off, off, len(samples)))
    attributor = Attributor(3.0)
    windows(attributor, served.works, Samples(times, samples.watts), 40)
    factors = [attributor.factor("net", segment) for segment in range(5)]
    told = float(np.dot(factors, predicted))
    assert told == pytest.approx(sum(NETWORK.joules), rel=0.25)
