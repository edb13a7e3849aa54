from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plant import Floats, Power, Sensor
from power.attribution.response import Readings, Response, Spending, fit_response

RESPONSES = [
    Response(),
    Response(lag=0.1),
    Response(window=0.1),
    Response(lag=0.05, window=0.1),
    Response(lag=0.1, window=0.02),
]


def blocks(seconds: float, seed: int) -> tuple[Floats, Floats, Floats]:
    """Blocks of work of a few milliseconds, at a load that varies."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(0.01, int(seconds * 60)) * np.repeat(
        rng.uniform(0.2, 3, int(seconds * 2)), 30
    )
    lengths = rng.uniform(0.003, 0.012, len(gaps))
    began = np.cumsum(gaps + lengths) - lengths
    kept = began < seconds
    return began[kept], (began + lengths)[kept], (lengths * rng.uniform(3, 9, len(gaps)))[kept]


def test_spending_counts_blocks_that_overlap() -> None:
    spending = Spending(np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([2.0, 4.0]))
    moments = np.array([0.0, 1.0, 2.0, 2.5, 3.0, 4.0, 9.0])
    assert spending.upto(moments) == pytest.approx([0, 0, 1, 2.5, 4, 6, 6])


def test_nothing_ran_spends_nothing() -> None:
    none = np.zeros(0)
    assert Spending(none, none, none).upto(np.array([1.0, 2.0])).tolist() == [0, 0]


@pytest.mark.parametrize("lag", [0.007, 0.1, 0.4])
def test_a_lag_shows_power_as_a_low_pass_does(lag: float) -> None:
    began, ended, joules = blocks(20, 1)
    times = np.linspace(2, 18, 200)
    true = Sensor(window=1e-5, lag=lag, quantum=0, noise=0).read(
        Power(0.0, began, ended, joules), times, 0
    )
    shown = Response(lag=lag).views(times).watts(Spending(began, ended, joules))
    assert shown == pytest.approx(true, abs=0.35)
    assert np.sqrt(np.mean((shown - true) ** 2)) < 0.03 * np.std(true) + 0.02


def test_a_window_of_unknown_phase_shows_the_mean_over_phases_and_says_its_doubt() -> None:
    began, ended, joules = blocks(20, 2)
    times = np.linspace(2, 18, 100)
    power, spending = Power(0.0, began, ended, joules), Spending(began, ended, joules)
    sensor = Sensor(window=0.05, quantum=0, noise=0)
    shown = np.array([sensor.read(power, times, seed) for seed in range(200)])
    views = Response(window=0.05).views(times)
    assert views.watts(spending) == pytest.approx(shown.mean(axis=0), abs=0.35)
    doubt = views.doubt(views.boxes(spending))
    assert doubt == pytest.approx(shown.std(axis=0), abs=0.25)


@pytest.mark.parametrize("response", RESPONSES, ids=str)
@settings(max_examples=30, deadline=None)
@given(
    began=st.floats(0, 10),
    length=st.floats(1e-6, 3),
    moments=st.lists(st.floats(0, 20), min_size=1, max_size=6),
)
def test_all_of_a_block_shows_in_the_end_and_never_less_than_before(
    response: Response, began: float, length: float, moments: list[float]
) -> None:
    first, last = np.array([began]), np.array([began + length])
    seen = [float(response.seen(first, last, until)[0]) for until in sorted(moments)]
    assert np.all(np.diff(seen) >= -1e-9)
    assert response.seen(first, last, began)[0] == 0
    assert response.seen(first, last, began + length + response.reach + 1e-3)[0] == pytest.approx(1)


@pytest.mark.parametrize("response", RESPONSES[1:], ids=str)
def test_a_block_shows_late_by_the_delay(response: Response) -> None:
    moments = np.linspace(0, 2, 2001)
    seen = [response.seen(np.zeros(1), np.full(1, 1e-6), float(m))[0] for m in moments]
    mean = float(np.sum(1 - np.array(seen)) * (moments[1] - moments[0]))
    assert mean == pytest.approx(response.delay, rel=0.05)


@pytest.mark.parametrize("lag", [0.0066, 0.05, 0.42])
def test_the_lag_of_a_sensor_is_found(lag: float) -> None:
    began, ended, joules = blocks(30, 3)
    samples = Sensor(window=1e-4, lag=lag).poll(Power(3.0, began, ended, joules), 0, 30, 1)
    found = fit_response(Readings(samples.times, samples.watts), [(began, ended, joules)])
    assert found is not None
    assert found.window < 0.2 * found.lag
    assert found.delay == pytest.approx(lag, rel=0.12)


def test_the_window_of_a_sensor_is_found_though_another_program_starts_and_stops() -> None:
    began, ended, joules = blocks(30, 4)
    power = Power(
        3.0,
        np.append(began, [7.0, 15.0]),
        np.append(ended, [11.0, 40.0]),
        np.append(joules, [12.0, 50.0]),
    )
    samples = Sensor(window=0.0066).poll(power, 0, 30, 2)
    found = fit_response(Readings(samples.times, samples.watts), [(began, ended, joules)])
    assert found is not None
    assert found.delay == pytest.approx(0.0066, rel=0.3)


def test_too_little_to_tell_leaves_what_is_known() -> None:
    times = np.arange(0, 20, 0.05)
    watts = 3 + np.random.default_rng(0).normal(0, 0.1, len(times))
    known, steady = Response(lag=0.1), np.arange(-5, 21, 0.01)
    even = (steady, steady + 0.01, np.full(len(steady), 0.03))
    assert fit_response(Readings(times, watts), [even], known) is known
    assert fit_response(Readings(times, watts), [], known) is known
    assert fit_response(Readings(times[:5], watts[:5]), [blocks(20, 5)], known) is known


def test_readings_that_do_not_follow_a_load_that_varies_refute_what_was_known() -> None:
    times = np.arange(0, 20, 0.05)
    watts = np.random.default_rng(0).choice([3.0, 9.0], len(times))
    assert fit_response(Readings(times, watts), [blocks(20, 5)], Response(window=0.02)) is None


def test_means_of_known_stretches_show_what_ran_in_them() -> None:
    began, ended, joules = blocks(10, 6)
    ends = np.arange(1.0, 9.0)
    readings = Readings(ends, np.zeros(len(ends)), np.full(len(ends), 0.5))
    spending = Spending(began, ended, joules)
    spent = spending.upto(ends) - spending.upto(ends - 0.5)
    assert readings.views(Response()).watts(spending) == pytest.approx(spent / 0.5)
