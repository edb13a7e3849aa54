from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from delen.core.energy_status import LONGEST_HISTORY, BoardEnergy, WindowStatus
from delen.core.work import Split
from delen.energy.history import History, in_steps


def add(
    history: History, ended: float, measured: bool = True, wall: float = 0.0, **own: Any
) -> WindowStatus:
    idle, other = (6.0, -0.5) if measured else (None, None)
    kind: Any = "attributed" if measured else "estimated"
    window = WindowStatus(wall + ended, 1.0, None, {}, 2.0, idle, other, kind, 0.0, "ok")
    window = replace(window, **own)
    total = 7.5 if measured else None
    split = Split(ended - 1.0, ended, kind, total, 2.0, idle, other, {}, frozenset())
    history.add(window, split)
    return window


def test_windows_are_given_by_the_accountings_clock() -> None:
    history = History()
    assert (history.latest, history.count, history.since(0.0, 0.0)) == (None, 0, [])
    windows = [add(history, 100.0 + n) for n in range(30)]
    assert history.since(0.0, 0.0) == windows
    assert history.since(127.0, 0.0) == windows[28:]
    assert history.latest == windows[-1]
    assert history.count == 30


def test_a_clock_that_is_set_neither_drops_nor_reorders_windows() -> None:
    history = History()
    for n in range(10):
        add(history, 100.0 + n, wall=0.0)
    for n in range(10, 20):
        add(history, 100.0 + n, wall=1.79e9)
    add(history, 120.0, wall=-5000.0)
    shown = history.since(0.0, 1.79e9)
    assert [window.time for window in shown] == [1.79e9 + 100.0 + n for n in range(21)]


def test_windows_of_long_ago_are_merged_and_none_is_lost_or_shown_twice() -> None:
    history = History(fine=100.0, step=10.0, longest=1000.0)
    for n in range(1, 2001):
        add(history, float(n))
    rows = history.since(0.0, 0.0)
    assert {row.seconds for row in rows} == {1.0, 10.0}
    assert rows == sorted(rows, key=lambda row: row.time)
    for earlier, later in pairwise(rows):
        assert later.time - later.seconds == earlier.time
    assert sum(row.seconds for row in rows) == pytest.approx(1000.0, abs=10.0)
    assert sum(row.attributed for row in rows) == 2.0 * sum(row.seconds for row in rows)
    fine = [row for row in rows if row.seconds == 1.0]
    assert 100 <= len(fine) <= 110


def test_a_merged_window_has_sums_and_means() -> None:
    history = History(fine=2.0, step=2.0, longest=100.0)
    add(history, 1.0, watts=4.0, rails={"A": 1.0, "B": 3.0}, price=1.0, attributed=1.0)
    add(history, 2.0, watts=None, rails={"A": 2.0}, price=2.0, state="degraded")
    for n in range(3, 7):
        add(history, float(n))
    merged = history.since(0.0, 0.0)[0]
    assert merged == WindowStatus(
        2.0, 2.0, 4.0, {"A": 1.5, "B": 3.0}, 3.0, 12.0, -1.0, "attributed", 2.0, "degraded"
    )


def test_what_is_unknown_of_a_part_is_unknown_of_the_whole() -> None:
    history = History(fine=2.0, step=2.0, longest=100.0)
    for n in range(1, 8):
        add(history, float(n), measured=n != 2)
    merged = history.since(0.0, 0.0)[0]
    assert (merged.seconds, merged.kind, merged.idle, merged.other) == (
        2.0,
        "estimated",
        None,
        None,
    )
    assert (merged.attributed, merged.watts) == (4.0, None)


def test_windows_that_are_longer_than_a_step_stay_as_they_are() -> None:
    history = History(fine=100.0, step=10.0, longest=1000.0)
    for n in range(1, 101):
        add(history, 30.0 * n, seconds=30.0)
    rows = history.since(0.0, 0.0)
    assert {row.seconds for row in rows} == {30.0}
    assert sum(row.seconds for row in rows) == pytest.approx(1000.0, abs=30.0)


def test_a_day_takes_bounded_memory() -> None:
    history = History()
    for n in range(int(LONGEST_HISTORY) + 10_000):
        add(history, float(n))
    rows = history.since(0.0, 0.0)
    assert len(rows) < 5100
    assert sum(row.seconds for row in rows) == pytest.approx(LONGEST_HISTORY, abs=120.0)
    assert sum(map(sys.getsizeof, rows)) < 2e6


def test_the_boards_energy_counts_what_was_measured_alone() -> None:
    history = History(1.0)
    for n in range(4):
        add(history, 100.0 + n, measured=n != 2)
    assert history.energy == BoardEnergy(attributed=6.0, idle=18.0, other=-1.5)


def test_windows_are_merged_to_the_step_that_is_asked_for() -> None:
    history = History()
    for n in range(25):
        add(history, 100.0 + n, watts=None if n < 10 else 7.0)
    steps = in_steps(history.since(0.0, 0.0), 10.0)
    assert [step.seconds for step in steps] == [10.0, 10.0, 5.0]
    assert [step.watts for step in steps] == [None, 7.0, 7.0]
    assert in_steps([], 10.0) == []
