from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from delen.errors import SensorFailed
from power.sources.hwmon import INA3221
from power.sources.rails import RailSource
from power.sources.sampler import Sampler
from power.sources.source import PowerReading, PowerSource
from tests.sensors import SensorTree, make_tree, play

DEADLINE = 20.0


def until(holds: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.002)


class Clock:
    """The monotonic clock, which a test can let run ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Script:
    """A source whose readings, or errors, a function of their number gives."""

    name = "script"
    kind: Literal["measured", "estimated"] = "measured"
    scope = "module_input"
    interval = 0.001

    def __init__(self, reading: Callable[[int], PowerReading | Exception]) -> None:
        self.reads = 0
        self.closed = False
        self._reading = reading

    def read(self) -> PowerReading:
        self.reads += 1
        reading = self._reading(self.reads)
        if isinstance(reading, Exception):
            raise reading
        return reading

    def close(self) -> None:
        self.closed = True


def reading(number: int, watts: float | None = 5.0, joules: float | None = None) -> PowerReading:
    """The one at hundredths of a second."""
    return PowerReading(number / 100, {"VDD_IN": 5.0}, watts, joules)


@contextmanager
def running(
    source: PowerSource, interval: float = 0.001, retain: float = 120.0, clock: Clock | None = None
) -> Iterator[Sampler]:
    sampler = Sampler(source, interval, retain, clock=clock or Clock())
    sampler.start()
    try:
        yield sampler
    finally:
        sampler.close()


def came(sampler: Sampler, time_of_reading: float) -> None:
    until(lambda: (sampler.covered() or 0.0) >= time_of_reading, f"reading {time_of_reading}")


@pytest.fixture
def tree(tmp_path: Path) -> SensorTree:
    return make_tree(tmp_path / "root", "orin-nx", {"VDD_IN": 6.0})


def test_it_keeps_what_a_real_sensor_says(tree: SensorTree) -> None:
    began, level = time.monotonic(), [6.0]
    with (
        play(tree, lambda _: tree.spread(level[0])),
        running(RailSource(INA3221, tree.root), 0.2) as sampler,
    ):
        until(lambda: len(sampler.samples(began)) >= 2, "two samples of the first level")
        level[0] = 8.0
        until(lambda: sampler.samples(began).watts[-2:].min() == 8, "two of the second")
        state = sampler.state()
        assert (state.status, state.problem, state.errors) == ("ok", None, 0)
        assert state.reading is not None
        assert set(state.reading.rails) == set(tree.rails)
        samples = sampler.samples(began)
    assert set(samples.watts) == {6.0, 8.0}
    assert np.all(np.diff(samples.times) > 0)
    assert samples.joules is None
    inside = sampler.window(samples.times[1], samples.times[-2])
    assert inside is not None
    assert len(inside) == len(samples) - 2
    assert 6.0 <= inside.energy(samples.times[1], samples.times[-2]) / np.ptp(inside.times) <= 8.0


def test_a_window_has_a_sample_on_either_side_or_is_none() -> None:
    with running(Script(reading)) as sampler:
        came(sampler, 0.3)
    window = sampler.window(0.095, 0.205)
    assert window is not None
    assert window.times[[0, -1]].tolist() == [0.09, 0.21]
    assert window.energy(0.095, 0.205) == pytest.approx(0.11 * 5.0)
    on_samples = sampler.window(0.1, 0.2)
    assert on_samples is not None
    assert on_samples.times[[0, -1]].tolist() == [0.1, 0.2]
    covered = sampler.covered()
    assert covered is not None
    assert sampler.window(0.0, 0.2) is None
    assert sampler.window(0.1, covered + 0.01) is None
    assert sampler.samples(0.105).times[0] == 0.1
    assert sampler.samples(-1.0).times[0] == 0.01
    assert len(sampler.samples(covered + 1)) == 1


def test_before_the_first_reading_there_is_nothing() -> None:
    source = Script(reading)
    sampler = Sampler(source)
    state = sampler.state()
    assert (state.status, state.problem) == ("degraded", "there has been no reading yet")
    assert sampler.covered() is None
    assert sampler.window(0.0, 1.0) is None
    assert len(sampler.samples(0.0)) == 0
    sampler.close()
    assert source.closed


def test_it_polls_no_faster_than_the_source_changes() -> None:
    source = Script(reading)
    sampler = Sampler(source, 0.05)
    assert (sampler.interval, sampler.stalled_after, sampler.widest_gap) == (0.05, 1.0, 0.25)
    source.interval = 0.42
    assert (sampler.interval, sampler.stalled_after, sampler.widest_gap) == (0.42, 2.1, 2.1)


def test_polls_jitter_by_a_tenth_and_the_same_for_the_same_seed() -> None:
    waits: list[list[float]] = []

    class Stop(threading.Event):
        """Notes how long it is asked to wait, and does not."""

        def wait(self, timeout: float | None = None) -> bool:
            waits[-1].append(timeout or 0.0)
            if len(waits[-1]) == 200:
                self.set()
            return self.is_set()

    for seed in (7, 7, 8):
        waits.append([])
        sampler = Sampler(Script(reading), 1.0, seed=seed, clock=lambda: 0.0)
        sampler._stop = Stop()
        sampler._run()
    assert waits[0] == waits[1] != waits[2]
    assert 0.9 <= min(waits[0]) < 0.92
    assert 1.08 < max(waits[0]) <= 1.1


def test_only_the_latest_seconds_are_kept() -> None:
    sampler = Sampler(Script(reading), 0.001, retain=0.05, clock=lambda: 0.0)
    for _ in range(5000):
        sampler._poll(0.0)
    kept = len(sampler.samples(0.0))
    assert 5 <= kept <= 2048
    assert sampler.window(0.02, 0.1) is None
    covered = sampler.covered()
    assert covered is not None
    assert sampler.window(covered - 0.3, covered) is not None


def test_a_source_that_comes_to_be_read_more_often_is_kept_for_as_long() -> None:
    class Changing(Script):
        interval = 100.0

    source = Changing(reading)
    sampler = Sampler(source, 0.001, retain=60.0, clock=lambda: 0.0)
    source.interval = 0.001
    for _ in range(20_000):
        sampler._poll(0.0)
    assert sampler.window(141.0, 199.0) is not None
    assert len(sampler.samples(0.0)) < 20_000


def test_a_failing_sensor_is_degraded_and_recovers(
    tree: SensorTree, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    with (
        caplog.at_level(logging.INFO, "delen.power"),
        running(RailSource(INA3221, tree.root), 0.01) as sampler,
    ):
        until(lambda: sampler.state().status == "ok", "a reading")
        good = sampler.state()
        tree.fail(tree.path("VDD_IN", "current"))
        until(lambda: sampler.state().errors >= 3, "three failures")
        failing = sampler.state()
        assert failing.status == "degraded"
        assert failing.problem is not None
        assert "curr1_input failed: Input/output error" in failing.problem
        assert failing.since > good.since
        assert failing.reading is not None
        broke = failing.reading.time
        tree.heal()
        until(lambda: sampler.state().status == "ok", "recovery")
        healed = sampler.state()
        came(sampler, time.monotonic())
        assert healed.since > failing.since
        assert sampler.samples(began).times[0] > broke
        assert sampler.window(broke - 0.001, broke + 0.5) is None
    texts = [record.message for record in caplog.records]
    assert len(texts) == 2
    assert "ina3221 is degraded" in texts[0]
    assert "ina3221 reads again after" in texts[1]


def test_a_sensor_that_vanishes_is_found_again_under_another_number(tree: SensorTree) -> None:
    with running(RailSource(INA3221, tree.root), 0.01) as sampler:
        until(lambda: sampler.state().status == "ok", "a reading")
        tree.vanish()
        until(lambda: sampler.state().status == "degraded", "the loss")
        tree.write({"VDD_IN": 9.0})
        tree.come_back(shift=3)
        until(lambda: sampler.state().status == "ok", "the return")
        state = sampler.state()
    assert state.reading is not None
    assert state.reading.total == 9.0


def test_a_read_that_hangs_is_noticed_and_holds_nobody_up(tree: SensorTree) -> None:
    clock = Clock()
    source = RailSource(INA3221, tree.root)
    sampler = Sampler(source, 0.01, clock=clock)
    sampler.start()
    until(lambda: sampler.state().status == "ok", "a reading")
    pipe = tree.path("VDD_IN", "current")
    tree.remove(pipe)
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_WRONLY)  # returns when the sampler's read is in the pipe
    clock.ahead = 1.5
    state = sampler.state()
    assert state.status == "degraded"
    assert state.problem is not None
    assert state.problem.startswith("a reading ")
    assert sampler.state().errors == 0, "looking at it counts nothing"
    noticed = sampler.check()
    assert (noticed.status, noticed.errors) == ("degraded", 1)
    assert sampler.check() is noticed
    assert sampler.state() is noticed
    assert len(sampler.samples(0.0)) > 0

    tree.heal()
    os.write(writer, b"1200\n")
    os.close(writer)
    until(lambda: sampler.state().status == "ok", "recovery")

    tree.remove(pipe)
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_WRONLY)
    sampler.close()
    assert sampler._thread.is_alive()
    os.close(writer)
    sampler._thread.join(DEADLINE)
    assert not sampler._thread.is_alive()


def test_readings_that_do_not_advance_are_a_stall() -> None:
    clock = Clock()
    source = Script(lambda number: reading(min(number, 5)))
    with running(source, clock=clock) as sampler:
        came(sampler, 0.05)
        assert sampler.state().status == "ok"
        clock.ahead = 1.5
        state = sampler.state()
        assert state.status == "degraded"
        assert state.problem is not None
        assert state.problem.startswith("its readings have not advanced for ")
        again = source.reads + 3
        until(lambda: source.reads > again, "more of the same readings")
        assert sampler.state().status == "degraded"
        assert len(sampler.samples(0.0)) == 5


@pytest.mark.parametrize(
    ("rubbish", "problem"),
    [
        (reading(3, watts=None), "the reading has no total"),
        (reading(3, watts=float("nan")), "the total of the reading is nan"),
        (reading(3, joules=float("inf")), "the energy counter of the reading is inf"),
        (PowerReading(float("nan"), {}, 5.0), "the time of the reading is nan"),
        (SensorFailed("no answer"), "no answer"),
        (ZeroDivisionError("oops"), "ZeroDivisionError: oops"),
    ],
)
def test_rubbish_is_no_sample(rubbish: PowerReading | Exception, problem: str) -> None:
    with running(Script(lambda number: reading(number) if number < 3 else rubbish)) as sampler:
        until(lambda: sampler.state().errors, "rubbish")
        state = sampler.state()
    assert (state.status, state.problem) == ("degraded", problem)
    assert sampler.samples(0.0).times.tolist() == [0.01, 0.02]


@pytest.mark.parametrize("glitch", [500.0, 0.1, 0.0, -3.0])
def test_a_single_reading_far_from_its_neighbours_is_dropped_and_counted(glitch: float) -> None:
    def glitching(number: int) -> PowerReading:
        return reading(number, glitch if number == 20 else 12.0)

    with running(Script(glitching)) as sampler:
        until(lambda: (sampler.covered() or 0) > 0.3, "samples after the glitch")
        state, samples = sampler.state(), sampler.samples(0.0)
    assert set(samples.watts) == {12.0}
    assert 0.2 not in samples.times
    assert (state.status, state.errors) == ("ok", 1)


@pytest.mark.parametrize(("before", "after"), [(2.0, 60.0), (60.0, 0.5), (0.0, 15.0)])
def test_a_load_that_leaps_and_stays_is_kept_whole(before: float, after: float) -> None:
    with running(Script(lambda n: reading(n, before if n < 20 else after))) as sampler:
        until(lambda: (sampler.covered() or 0) > 0.3, "samples after the leap")
        samples, state = sampler.samples(0.0), sampler.state()
    expected = [before if round(100 * time) < 20 else after for time in samples.times]
    assert samples.watts.tolist() == expected
    assert 0.2 in samples.times.round(6)
    assert state.errors == 0


def test_a_counter_and_an_estimate_may_leap() -> None:
    def bursting(number: int) -> PowerReading:
        return reading(number, 80.0 if number == 20 else 2.0, joules=float(number))

    estimated = Script(lambda number: reading(number, 80.0 if number == 20 else 2.0))
    estimated.kind = "estimated"
    for source in (Script(bursting), estimated):
        with running(source) as sampler:
            until(lambda sampler=sampler: (sampler.covered() or 0) > 0.3, "samples")  # type: ignore[misc]
            assert 80.0 in sampler.samples(0.0).watts


def test_negative_watts_are_no_rubbish() -> None:
    with running(Script(lambda number: reading(number, watts=-0.04))) as sampler:
        came(sampler, 0.05)
        assert sampler.state().status == "ok"
    assert sampler.samples(0.0).watts[0] == -0.04


def test_one_failure_between_near_readings_is_no_gap() -> None:
    def once(number: int) -> PowerReading | Exception:
        return SensorFailed("timed out") if number == 5 else reading(number)

    with running(Script(once)) as sampler:
        came(sampler, 0.1)
        assert sampler.state().errors == 1
    assert sampler.window(0.03, 0.08) is not None


def test_nothing_is_interpolated_over_a_gap() -> None:
    def skipping(number: int) -> PowerReading:
        return reading(number if number < 10 else number + 30)

    with running(Script(skipping)) as sampler:
        came(sampler, 0.6)
    assert sampler.window(0.05, 0.45) is None
    assert sampler.window(0.09, 0.4) is None
    assert sampler.window(0.03, 0.09) is not None
    assert sampler.window(0.4, 0.5) is not None
    assert sampler.samples(0.0).times[0] == 0.4


def test_a_counter_gives_the_energy_until_it_starts_anew() -> None:
    def counting(number: int) -> PowerReading:
        return reading(number, watts=1.0, joules=float(number if number < 20 else number - 20))

    with running(Script(counting)) as sampler:
        came(sampler, 0.4)
    window = sampler.window(0.05, 0.15)
    assert window is not None
    assert window.energy(0.05, 0.15) == pytest.approx(10.0)
    assert sampler.window(0.15, 0.25) is None
    assert sampler.samples(0.0).times[0] == 0.2


def test_failing_reads_are_repeated_ever_more_rarely() -> None:
    waits: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            if len(waits) == 10:
                self.set()
            return self.is_set()

    sampler = Sampler(
        Script(lambda number: reading(number) if number == 8 else SensorFailed("dead")),
        clock=lambda: 0.0,
    )
    sampler._stop = Stop()
    sampler._run()
    assert waits[:7] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0])
    assert waits[7] == pytest.approx(0.05, rel=0.11)
    assert waits[8:] == pytest.approx([0.1, 0.2])


def test_a_sensor_that_flaps_is_not_logged_each_time(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()

    def flapping(number: int) -> PowerReading | Exception:
        return SensorFailed("loose wire") if number % 3 == 0 else reading(number)

    def warnings() -> int:
        return sum(record.levelno == logging.WARNING for record in caplog.records)

    with (
        caplog.at_level(logging.INFO, "delen.power"),
        running(Script(flapping), clock=clock) as sampler,
    ):
        until(lambda: sampler.state().errors >= 4, "four failures")
        assert warnings() == 1
        clock.ahead = 61.0
        until(lambda: warnings() == 2, "the next minute's warning")


def test_a_sensor_that_comes_back_and_goes_for_good_is_logged_in_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()

    def going(number: int) -> PowerReading | Exception:
        return reading(number) if number == 2 else SensorFailed("loose wire")

    def warnings() -> int:
        return sum(record.levelno == logging.WARNING for record in caplog.records)

    with (
        caplog.at_level(logging.INFO, "delen.power"),
        running(Script(going), clock=clock) as sampler,
    ):
        until(lambda: sampler.state().errors >= 3, "the second time it goes")
        assert warnings() == 1
        clock.ahead = 61.0
        until(lambda: warnings() == 2, "the warning that it is gone")
        sampler.state()
        assert warnings() == 2


def test_a_frozen_source_is_degraded_until_its_total_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watts = [4.0, *[5.0] * 9, *[5.2] * 3]
    sampler = Sampler(Script(lambda number: reading(number, watts[number - 1])), clock=lambda: 0.13)
    with caplog.at_level(logging.INFO, "delen.power"):
        for _ in range(8):
            sampler._poll(0.0)
        sampler.freeze(0.015)
        assert sampler.state().status == "ok", "the total has changed since"
        sampler.freeze(0.08)
        sampler.freeze(0.08)
        sampler._poll(0.0)
        state = sampler.state()
        assert (state.status, state.errors) == ("degraded", 1)
        assert state.problem is not None
        assert "5 W" in state.problem
        assert sampler.covered() == 0.02, "what it repeated is no sample"
        for _ in range(4):
            sampler._poll(0.0)
        assert sampler.state().status == "ok"
        assert sampler.window(0.02, 0.12) is None, "nothing is interpolated over it"
        assert sampler.window(0.11, 0.13) is not None
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_counter_that_stands_is_a_stall() -> None:
    clock = Clock()
    source = Script(lambda number: reading(number, 0.0, joules=float(min(number, 5))))
    with running(source, clock=clock) as sampler:
        came(sampler, 0.05)
        clock.ahead = 1.5
        until(lambda: source.reads > 20, "more of the same count")
        state = sampler.state()
    assert state.status == "degraded"
    assert state.problem is not None
    assert "have not advanced" in state.problem
    assert len(sampler.samples(0.0)) == 5
