from __future__ import annotations

from typing import Any

from delen.core.energy_status import BoardEnergy, WindowStatus
from delen.core.work import Split
from delen.energy.history import History


def add(history: History, time: float, measured: bool = True) -> WindowStatus:
    idle, other = (6.0, -0.5) if measured else (None, None)
    kind: Any = "attributed" if measured else "estimated"
    window = WindowStatus(time, 1.0, None, {}, 2.0, idle, other, kind, 0.0, "ok")
    total = 7.5 if measured else None
    split = Split(0.0, 1.0, kind, total, 2.0, idle, other, {}, frozenset())
    history.add(window, split)
    return window


def test_windows_are_kept_for_so_long_and_given_by_time() -> None:
    history = History(seconds=10.0)
    assert (history.latest, history.count, history.since(0.0)) == (None, 0, [])
    windows = [add(history, 100.0 + n) for n in range(30)]
    assert history.since(0.0) == windows[19:]
    assert history.since(127.0) == windows[28:]
    assert history.latest == windows[-1]
    assert history.count == 30


def test_the_boards_energy_counts_what_was_measured_alone() -> None:
    history = History(seconds=1.0)
    for n in range(4):
        add(history, 100.0 + n, measured=n != 2)
    assert history.energy == BoardEnergy(attributed=6.0, idle=18.0, other=-1.5)
