from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from delen.engine.backends.base import Placement, SegmentRun
from delen.measure.disturbance import (
    Evidence,
    GaveWay,
    ProcessorWatch,
    SpareLane,
    is_busy,
    worse,
)
from delen.profile.profile import Disturbance


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now = self.process = self.thread = 0.0

    def monotonic(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.process

    def thread_time(self) -> float:
        return self.thread


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("delen.measure.disturbance.time", clock)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2})
    return clock


def write_times(file: Path, *seconds: float) -> None:
    """The processor times of three cores, each busy for so long: a fourth of it in user code, and
    the same as nice, system and stolen time. Idle time and input and output count for nothing."""
    tick = os.sysconf("SC_CLK_TCK")
    rows = []
    for core, busy in enumerate(seconds):
        quarter = round(busy * tick / 4)
        rows.append(f"cpu{core} {quarter} {quarter} {quarter} 7777 888 0 0 {quarter} 0 0")
    file.write_text("\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *rows, "intr 1 2 3"]) + "\n")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (Evidence(seconds=2.0, cores=2, busy=2.0, own=2.0), False),
        (Evidence(seconds=2.0, cores=2, busy=2.3, own=2.0), False),
        (Evidence(seconds=2.0, cores=2, busy=3.0, own=2.0), True),
        (Evidence(seconds=2.0, cores=4, busy=8.0, own=1.0), True),
        (Evidence(seconds=2.0, cores=2, busy=1.9, own=2.0), False),
        (Evidence(seconds=0.05, cores=2, busy=0.1, own=0.0), False),
    ],
    ids=["alone", "little else", "a busy core", "all cores busy", "rounding", "too short to say"],
)
def test_a_machine_is_busy_where_others_have_much_of_it(evidence: Evidence, expected: bool) -> None:
    assert is_busy(evidence) is expected


def test_other_work_is_what_our_cores_did_less_what_we_did(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "stat"
    write_times(file, 10.0, 50.0, 20.0)
    watch = ProcessorWatch(file)
    write_times(file, 11.0, 90.0, 22.0)
    clock.now, clock.process = 2.0, 2.0
    assert watch.disturbance() == Disturbance(busy=True, others=0.25)


def test_what_else_this_process_did_disturbs_a_measurement_on_one_thread(
    tmp_path: Path, clock: Clock
) -> None:
    file = tmp_path / "stat"
    write_times(file, 0.0, 0.0, 0.0)
    watch = ProcessorWatch(file)
    write_times(file, 2.0, 0.0, 2.0)
    clock.now, clock.process, clock.thread = 2.0, 4.0, 2.0
    assert watch.disturbance() == Disturbance(busy=False, others=0.0)
    assert watch.disturbance(threads=1) == Disturbance(busy=True, others=0.5)
    assert watch.disturbance(threads=2) == Disturbance(busy=False, others=0.0)


@pytest.mark.parametrize("contents", [None, "", "cpu0 a b\n", "cpu0 1 2\n"])
def test_where_the_kernel_says_nothing_nothing_is_known(
    tmp_path: Path, contents: str | None
) -> None:
    file = tmp_path / "stat"
    if contents is not None:
        file.write_text(contents)
    assert ProcessorWatch(file).disturbance() is None


def test_the_more_disturbed_part_counts() -> None:
    calm, busy = Disturbance(False, 0.02), Disturbance(True, 0.5)
    assert worse(calm, busy) == worse(busy, calm) == worse(None, busy) == worse(busy, None) == busy
    assert worse(None, None) is None


def test_a_spare_lane_runs_nothing_once_it_gives_way() -> None:
    ran: list[tuple[int, int]] = []

    class Network:
        placement = Placement("onnxruntime", "cpu", 1)

        def run(self, segment: int, samples: Sequence[Any], lane: int = 0) -> Any:
            ran.append((segment, lane))
            return SegmentRun([], None, None)  # type: ignore[arg-type]

    spare = SpareLane(Network(), 2, lambda: len(ran) == 2)  # type: ignore[arg-type]
    spare.run(0, [])
    spare.run(1, [], lane=1)
    with pytest.raises(GaveWay):
        spare.run(2, [])
    assert ran == [(0, 2), (1, 3)]
