from __future__ import annotations

import time

import pytest

from power.sources.model import ProcessorModel


class Clock:
    """Stands in for the module ``time``: wall clock and processor time, moved by the test."""

    def __init__(self) -> None:
        self.wall, self.processor = 100.0, 5.0

    def monotonic(self) -> float:
        return self.wall

    def process_time(self) -> float:
        return self.processor


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("power.sources.model.time", clock)
    return clock


def test_the_models_watts_are_those_of_busy_cores(clock: Clock) -> None:
    model = ProcessorModel(watts_per_core=4.0)
    clock.wall, clock.processor = 102.0, 8.0  # 1.5 cores busy for two seconds
    reading = model.read()
    assert reading.total == pytest.approx(6.0)
    assert reading.rails == {"processor": reading.total}
    assert reading.time == 102.0
    clock.wall = 110.0
    assert model.read().total == 0


def test_two_readings_at_once_do_not_divide_by_zero(clock: Clock) -> None:
    model = ProcessorModel(4.0)
    assert model.read().total == model.read().total == 0


def test_a_real_reading_is_never_negative() -> None:
    model = ProcessorModel(4.0)
    total = model.read().total
    assert total is not None
    assert total >= 0
    assert model.read().time <= time.monotonic()


def test_it_says_that_it_estimates() -> None:
    model = ProcessorModel(4.0)
    assert (model.name, model.kind, model.scope) == ("model", "estimated", "processor")
