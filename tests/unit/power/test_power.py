from __future__ import annotations

import time
from dataclasses import replace

import pytest

from delen.errors import ConfigError
from delen.profile import Quantiles, SegmentCost
from power.choose import CHOICES, UnknownAccount, account_of, choose_source
from power.model import ProcessorModel
from power.monitor import PowerMonitor

COST = SegmentCost(Quantiles(0.01, 0.01, 0.01, 0.01), processor=0.03)


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
    monkeypatch.setattr("power.model.time", clock)
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


def test_the_model_prices_processor_time_and_says_that_it_estimates() -> None:
    account = ProcessorModel(4.0).account
    assert account.planned(COST) == pytest.approx(0.12)
    assert account.used(COST, processor=0.05) == pytest.approx(0.2)
    assert account.planned(replace(COST, energy=99.0)) == pytest.approx(0.12)
    assert (account.kind, account.source, account.scope) == ("estimated", "model", "processor")


def test_without_a_source_every_figure_is_unknown() -> None:
    account = account_of(None)
    assert isinstance(account, UnknownAccount)
    assert (account.kind, account.source, account.scope) == ("unknown", None, None)
    assert account.planned(COST) is account.used(COST, 1.0) is None


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_has_its_source(choice: str) -> None:
    source = choose_source(choice, 2.0)
    assert (source is None) == (choice == "none")
    if source is not None:
        assert (source.name, source.kind) == ("model", "estimated")
        assert account_of(source) is source.account
        assert source.account.planned(COST) == pytest.approx(0.06)


def test_another_choice_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"power\.source 'solar' is none of auto, model, none"):
        choose_source("solar", 4.0)


def test_the_monitor_describes_the_source(clock: Clock) -> None:
    monitor = PowerMonitor(ProcessorModel(4.0))
    clock.wall, clock.processor = 101.0, 5.5
    assert monitor.describe() == {
        "source": "model",
        "scope": "processor",
        "kind": "estimated",
        "watts": 2.0,
        "rails": {"processor": 2.0},
    }
    monitor.close()


def test_the_monitor_without_a_source_knows_nothing() -> None:
    monitor = PowerMonitor(None)
    assert monitor.describe() == {
        "source": None,
        "scope": None,
        "kind": "unknown",
        "watts": None,
        "rails": {},
    }
    monitor.close()
