"""The grid of dispatch policies: its cells and its claims."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from benchmarks.dispatch import Grid, judge, play_grid
from benchmarks.dispatch_cells import (
    BATCHES,
    DEFAULT,
    HERE,
    NANO_NAME,
    TAIL,
    Cell,
    Size,
    full_seconds,
    model_of,
    spread_out,
    trace_of,
)
from benchmarks.dispatch_report import behind, by_cell, cells_table, claims, interval, least_share
from delen.simulate.trace import Arrival, Trace

CELL = Cell(NANO_NAME, "poisson", 3, 0.9)
SIZE = Size(40, 1.0)


def _line(
    cell: Cell, seed: int, ours: float, theirs: float, broken: float = 0.0, least: float = 0.0
) -> dict:
    figures = {DEFAULT: ours, "fifo": theirs}
    return {
        **cell._asdict(),
        "seed": seed,
        "bound": 1.0,
        "label_blind": 0.98,
        "deep": 0.98,
        "alone": 0.97,
        "policies": {
            name: {"effective": value, "violations": broken if name == DEFAULT else least}
            for name, value in figures.items()
        },
    }


def test_the_interval_leaves_out_what_order_statistics_allow() -> None:
    assert interval([3.0, 1.0, 2.0]) == (1, 3)
    assert interval(list(range(6))) == (0, 5)
    assert interval(list(range(8))) == (0, 7)
    assert interval(list(range(9))) == (1, 7)
    assert interval(list(range(20))) == (5, 14)


def test_a_trace_has_the_load_and_is_the_same_for_a_seed() -> None:
    model = model_of(NANO_NAME)
    size = Size(4000, 1.0)
    trace = trace_of(CELL, model, size, 1)
    assert trace == trace_of(CELL, model, size, 1)
    assert trace != trace_of(CELL, model, size, 2)
    full = sum(costs[1].latency.p50 for costs in model.profile.segments)
    assert len(trace) * full / trace.arrivals[-1].time == pytest.approx(0.9, rel=0.05)
    assert trace.tenants == ("app0", "app1", "app2")


def test_a_recording_gives_the_rate_its_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "jellyfish_lte_upload_trace.txt").write_text("1\n3\n")
    monkeypatch.setenv("DELEN_TEST_DATA", str(tmp_path))
    trace = trace_of(CELL._replace(kind="recorded"), model_of(NANO_NAME), Size(4000, 1.0), 0)
    late = sum(arrival.time > trace.arrivals[-1].time / 2 for arrival in trace)
    assert late / len(trace) == pytest.approx(0.75, abs=0.03)


def test_spread_out_changes_the_times_alone() -> None:
    trace = trace_of(CELL, model_of(NANO_NAME), SIZE, 0)
    idle = spread_out(trace, 5.0)
    assert [arrival.time for arrival in idle] == [5.0 * row for row in range(len(trace))]
    assert [arrival.bounds for arrival in idle] == [arrival.bounds for arrival in trace]
    assert isinstance(idle, Trace)


def test_a_grid_plays_each_cell_with_each_seed_and_the_report_can_read_it() -> None:
    grid = Grid(SIZE, (NANO_NAME,), ("cameras",), (10,), (0.5, 1.5), seeds=2)
    results = by_cell(play_grid(grid, (DEFAULT, "delen"), processes=1))
    assert [result.cell.load for result in results] == [0.5, 1.5]
    for result in results:
        assert len(result.share()) == 2
        assert result.share()[0] <= 1.05
        assert result.deep[0] <= 1
        assert result.rival == "delen"
        assert "cameras" in cells_table([result])


def of_kind(kind: str, tenants: int = 9, load: float = 0.9) -> Trace:
    return trace_of(Cell(NANO_NAME, kind, tenants, load), model_of(NANO_NAME), Size(400, 1.0), 0)


@pytest.mark.parametrize(("tenants", "load", "cameras"), [(9, 0.9, 9), (1, 0.3, 3), (1, 1.5, 15)])
def test_aligned_cameras_fire_together(tenants: int, load: float, cameras: int) -> None:
    times = [arrival.time for arrival in of_kind("aligned", tenants, load)]
    assert {times.count(time) for time in times} == {cameras}


def test_exact_deadlines_are_close_to_the_usual_latency_of_an_exit() -> None:
    costs = model_of(NANO_NAME).costs()
    usual = [1.1 * costs.typical(0, exit, 1) for exit in range(3)]
    caps = {arrival.bounds.max_latency for arrival in of_kind("exact")}
    assert sorted(caps) == pytest.approx(usual)


def test_priorities_that_oppose_deadlines() -> None:
    def cap(arrival: Arrival) -> float:
        return arrival.bounds.max_latency or inf

    for tenants in (1, 9):
        ordered = sorted(of_kind("inverted", tenants), key=cap)
        priorities = [arrival.priority or 5 for arrival in ordered]
        assert priorities == sorted(priorities, reverse=True)
        assert (priorities[0], priorities[-1]) == (9, 1)


def test_a_flash_crowd_comes_in_a_fifth_of_the_time() -> None:
    trace = of_kind("flash")
    end = trace.arrivals[-1].time
    crowd = sum(0.4 * end <= arrival.time <= 0.6 * end for arrival in trace)
    assert crowd / len(trace) == pytest.approx(0.6, abs=0.06)


def test_the_cluster_comes_in_bursts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "traces").mkdir()
    starts = [300 * minute for minute in range(100)] + [29_900] * 300
    rows = "\n".join(f"{start},{start + 1}" for start in starts)
    (tmp_path / "traces" / "cluster_tasks.csv").write_text(f"start_s,end_s\n{rows}\n")
    monkeypatch.setenv("DELEN_TEST_DATA", str(tmp_path))
    trace = of_kind("cluster", 3)
    late = sum(arrival.time > 0.98 * trace.arrivals[-1].time for arrival in trace)
    assert late / len(trace) == pytest.approx(0.75, abs=0.1)


def test_made_up_devices_are_what_they_are_called() -> None:
    batching, tailed = model_of(BATCHES).costs(), model_of(TAIL).costs()
    assert batching.typical(0, 0, 16) < 0.3 * 16 * batching.typical(0, 0, 1)
    assert tailed.latency(0, 0, 1) > 2.5 * tailed.typical(0, 0, 1)
    assert full_seconds(model_of(TAIL)) == pytest.approx(full_seconds(model_of(NANO_NAME)))


def test_what_has_no_recording_is_left_out_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DELEN_TEST_DATA", str(tmp_path))
    grid = Grid(SIZE, (NANO_NAME,), ("cluster", "exact"), (3,), (0.5,), seeds=1)
    judge((grid,), (DEFAULT, "fifo"), processes=1)
    printed = capsys.readouterr().out
    assert "'cluster'" in printed
    assert "of blind" in printed
    assert "nano         exact" in printed


def test_hard_cases_have_claims_of_their_own() -> None:
    assert least_share(Cell(NANO_NAME, "poisson", 3, 0.9)) == 0.995
    assert least_share(Cell(NANO_NAME, "poisson", 3, 1.0)) == 0.99
    assert least_share(Cell(NANO_NAME, "aligned", 3, 0.3)) == 0.92
    assert least_share(Cell(NANO_NAME, "inverted", 3, 0.3)) == 0.98
    assert least_share(Cell(HERE, "exact", 3, 0.3)) == 0.975
    assert least_share(Cell(BATCHES, "poisson", 3, 0.3)) == 0.98


def test_a_claim_is_that_of_the_worst_cell() -> None:
    calm, full, beyond = (Cell(NANO_NAME, "poisson", 1, load) for load in (0.5, 1.0, 1.5))
    lines = [
        line
        for seed in range(2)
        for line in (
            _line(calm, seed, 0.98, 0.96, broken=0.02),
            _line(full, seed, 0.96, 0.97),
            _line(beyond, seed, 0.97, 0.5, broken=0.2),
        )
    ]
    low, high, broken, ahead = claims(by_cell(lines))
    assert (low.median, low.holds) == (1.0, True)
    assert (round(high.median, 4), high.holds) == (0.9796, False)
    assert (broken.median, broken.holds) == (0.02, False)
    assert (round(ahead.median, 6), ahead.holds) == (-0.01, False)
    assert "1 of 3 cells" in behind(by_cell(lines))
    assert "nano, poisson, 1 apps, load 1: fifo by 1.00 points" in behind(by_cell(lines))


def test_violations_are_claimed_where_some_policy_keeps_them() -> None:
    cell = Cell(NANO_NAME, "exact", 1, 0.5)
    for least, count in ((0.0, 3), (0.05, 2)):
        lines = [_line(cell, seed, 0.9, 0.9, broken=0.1, least=least) for seed in range(2)]
        assert len(claims(by_cell(lines))) == count
